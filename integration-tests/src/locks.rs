//! Tables that others must wait for, to hold something where a test wants it.

use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::sandbox::Server;
use crate::{Failure, Outcome};

/// Connections that hold locks on several servers as long as this lives.
#[derive(Debug)]
pub struct Locks(Vec<Conn>);

impl Locks {
    /// Runs `sql`, which takes the lock, as `root` on each of `servers`.
    ///
    /// # Errors
    ///
    /// What a server answered.
    pub async fn take(servers: &[Arc<Server>], sql: &str) -> Result<Self, Failure> {
        let mut held = Vec::new();
        for server in servers {
            let mut conn = server.connect().await?;
            conn.query_drop(sql).await?;
            held.push(conn);
        }
        Ok(Self(held))
    }

    /// Gives them back.
    ///
    /// # Errors
    ///
    /// When a connection has broken.
    pub async fn release(self) -> Outcome {
        for conn in self.0 {
            conn.disconnect().await?;
        }
        Ok(())
    }
}
