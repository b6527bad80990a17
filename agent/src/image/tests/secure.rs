//! A front of the image server that speaks TLS, with a certificate of its own.

use super::server::Server;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A certificate for 127.0.0.1, and clients that trust it.
pub struct Authority {
    server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl Authority {
    pub fn new() -> Authority {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        Authority { server: Arc::new(server), client: Arc::new(client) }
    }
}

/// A running front; ends with its handle.
pub struct Front {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Front {
    pub fn of(server: &Server, authority: &Authority) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = Front { address: listener.local_addr().unwrap(), stop: Arc::new(AtomicBool::new(false)) };
        let (behind, config, stop) = (server.address(), authority.server.clone(), front.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), config, stop) = (stream, config.clone(), stop.clone()) else { continue };
                std::thread::spawn(move || relay(stream, config, behind, &stop));
            }
        });
        front
    }
    pub fn url(&self) -> String {
        format!("https://{}/disk.img", self.address)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// Carries bytes both ways until one side ends. The end is no farewell of TLS: to the client it is a connection that was
/// cut, as the plain one was.
fn relay(stream: TcpStream, config: Arc<ServerConfig>, behind: SocketAddr, stop: &AtomicBool) -> Option<()> {
    let mut plain = TcpStream::connect(behind).ok()?;
    stream.set_nodelay(true).ok()?;
    plain.set_nodelay(true).ok()?;
    // Long enough for a handshake between two busy threads, then short: each side is looked at in turn.
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut tls = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).ok()?;
    }
    let glance = Some(Duration::from_millis(1));
    tls.sock.set_read_timeout(glance).ok()?;
    tls.sock.set_write_timeout(Some(Duration::from_secs(20))).ok()?;
    plain.set_read_timeout(glance).ok()?;
    let mut buffer = vec![0; 256 << 10];
    while !stop.load(Ordering::SeqCst) {
        carry(&mut tls, &mut plain, &mut buffer)?;
        carry(&mut plain, &mut tls, &mut buffer)?;
    }
    Some(())
}

fn carry(from: &mut impl Read, to: &mut impl Write, buffer: &mut [u8]) -> Option<()> {
    match from.read(buffer) {
        Ok(0) => None,
        Ok(count) => {
            to.write_all(&buffer[..count]).ok()?;
            to.flush().ok()
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Some(()),
        Err(_) => None,
    }
}
