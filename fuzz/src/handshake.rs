//! The packets before the first command.

use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::handshake::{ChangeUser, ClientHello, Greeting};

use crate::option;

/// What is read is written so that it reads the same.
pub fn check(data: &[u8]) {
    let (chosen, payload) = option(data);
    match chosen & 3 {
        0 => greeting(payload),
        1 => hello(payload, chosen & 4 != 0),
        _ => change_user(payload, chosen),
    }
}

fn greeting(payload: &[u8]) {
    let Ok(mut greeting) = Greeting::parse(payload) else { return };
    if !greeting.capabilities.contains(Capabilities::PLUGIN_AUTH) {
        greeting.plugin.clear();
    }
    let mut out = Vec::new();
    greeting.write(&mut out);
    assert_eq!(Greeting::parse(&out), Ok(greeting));
}

fn hello(payload: &[u8], over_tls: bool) {
    let Ok(hello) = ClientHello::parse(payload, over_tls) else { return };
    let mut out = Vec::new();
    match hello {
        ClientHello::Response(response) => response.write(&mut out),
        ClientHello::Ssl(request) => request.write(&mut out),
        ClientHello::TooOld => return,
    }
    assert_eq!(ClientHello::parse(&out, over_tls), Ok(hello));
}

fn change_user(payload: &[u8], chosen: u8) {
    let mut capabilities = Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION;
    capabilities.set(Capabilities::PLUGIN_AUTH, chosen & 4 != 0);
    capabilities.set(Capabilities::CONNECT_ATTRS, chosen & 8 != 0);
    let Ok(change) = ChangeUser::parse(payload, capabilities) else { return };
    let mut out = Vec::new();
    change.write(&mut out, capabilities);
    let body = out.strip_prefix(&[0x11]).unwrap_or(&out);
    let again = ChangeUser::parse(body, capabilities).expect("a command that was written");
    // Fields that were left out at the end are written as empty ones.
    assert_eq!(again.plugin.unwrap_or_default(), change.plugin.unwrap_or_default());
    assert_eq!(ChangeUser { plugin: change.plugin, ..again }, change);
}
