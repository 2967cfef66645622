use std::sync::Arc;
use pointsman::worker::*; use pointsman::net::*;
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_max_level(if std::env::var("DEBUG").is_ok() {tracing::Level::DEBUG} else {tracing::Level::INFO}).with_writer(std::io::stderr).init();
    let file = std::env::args().nth(1).unwrap();
    let sources = pointsman_config::Sources { file: Some(file.into()), ..Default::default() };
    let loaded = match pointsman_config::load(&sources) { Ok(l) => l, Err(f) => { eprintln!("{f}"); std::process::exit(2) } };
    let config = Arc::new(loaded.config);
    let address = config.listen.rw.address.clone();
    let running = pointsman::serve::start(config).unwrap();
    pointsman::serve::ready(&running).await;
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    eprintln!("listening on {address}: {:?}", running.shared.topology.borrow().primary);
    loop {
        let (socket, peer) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        running.workers.assign(Accepted { socket: AcceptedSocket::Tcp(socket.into_std().unwrap()), listener: ListenerKind::ReadWrite, address: ClientAddress::Ip(peer) });
    }
}
