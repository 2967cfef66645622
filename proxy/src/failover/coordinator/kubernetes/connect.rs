//! Where the API server is, who this proxy is there, and what its refusals mean.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pointsman_config::Coordination;

use super::super::CoordinatorError;

/// A client, and the namespace of the Leases.
pub(super) async fn client(settings: &Coordination) -> Result<(Client, String), CoordinatorError> {
    let mut config = match &settings.kubeconfig_file {
        Some(path) => from_file(path).await?,
        None => Config::incluster().map_err(|error| CoordinatorError::NoPod(reasons(&error)))?,
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    // A swap that is repeated below would be told that it has lost, to itself.
    config.default_retry = false;
    let namespace = settings.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config);
    let client = client.map_err(|error| CoordinatorError::Kubernetes { what: reasons(&error) })?;
    Ok((client, namespace))
}

async fn from_file(path: &Path) -> Result<Config, CoordinatorError> {
    let failed = |error: &dyn std::error::Error| CoordinatorError::Kubeconfig {
        path: path.display().to_string(),
        what: reasons(error),
    };
    let file = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(&error))
}

/// Tells what failed where.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) namespace: String,
}

impl Failing {
    pub(super) fn to(&self, verb: &'static str, name: &str, error: &kube::Error) -> CoordinatorError {
        let kube::Error::Api(status) = error else { return self.said(verb, name, &reasons(error)) };
        match status.code {
            FORBIDDEN => {
                let namespace = self.namespace.clone();
                CoordinatorError::Forbidden { verb, name: name.to_owned(), namespace }
            }
            UNAUTHORIZED => CoordinatorError::Unauthorized,
            _ => self.said(verb, name, &status.message),
        }
    }

    /// Others always wrote first.
    pub(super) fn busy(&self, name: &str) -> CoordinatorError {
        self.said("patch", name, &"others changed it at the same time, again and again")
    }

    fn said(&self, verb: &str, name: &str, what: &dyn Display) -> CoordinatorError {
        CoordinatorError::Kubernetes { what: format!("{verb} lease {}/{name}: {what}", self.namespace) }
    }
}

/// An error with what it comes from: the outermost one often says little.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    text
}

const UNAUTHORIZED: u16 = 401;
const FORBIDDEN: u16 = 403;
const CONNECT_LIMIT: Duration = Duration::from_millis(1000);

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_missing_right_names_the_verb_the_object_and_the_fix() {
        let failing = Failing { namespace: "databases".into() };
        let refused = |code| kube::Error::Api(Status::failure("no", "x").with_code(code).boxed());
        let text = failing.to("patch", "shop-proxies", &refused(403)).to_string();
        assert_eq!(
            text,
            "kubernetes: the service account may not patch lease.coordination.k8s.io \"shop-proxies\" in namespace \
             \"databases\"; give it a Role with the verb \"patch\" on that Lease (the chart does with rbac.create=true)"
        );
        let text = failing.to("get", "shop", &refused(500)).to_string();
        assert_eq!(text, "kubernetes: get lease databases/shop: no");
        assert!(failing.to("get", "shop", &refused(401)).to_string().contains("token"));
    }
}
