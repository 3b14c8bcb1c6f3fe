//! A token server over https, of the kind that docker-registry trusts: JWTs signed by a key whose certificate it knows.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::client::Connection;
use super::registry::{PASSWORD, USER};
use super::tls::{self, Ca};

pub const SERVICE: &str = "registry under test";
pub const ISSUER: &str = "tests";

pub struct TokenServer {
    pub addr: SocketAddr,
    /// What docker-registry's `rootcertbundle` holds.
    pub cert: String,
    pub issued: Arc<AtomicUsize>,
    /// The query strings that were asked with.
    pub asked: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

struct Signer {
    key: EcdsaKeyPair,
    cert: String,
}

impl TokenServer {
    pub fn start(ca: &Ca) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let config = ca.leaf().server_config();
        let (signer, cert) = signer();
        let (issued, asked, stopped) =
            (Arc::<AtomicUsize>::default(), Arc::default(), Arc::<AtomicBool>::default());
        let state = (issued.clone(), Arc::clone(&asked), stopped.clone());
        let acceptor = std::thread::spawn(move || {
            let (issued, asked, stopped) = state;
            for socket in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let _ =
                    answer(BufReader::new(tls::accept(&config, socket.unwrap())), &signer, &issued, &asked);
            }
        });
        Self { addr, cert, issued, asked, stopped, acceptor: Some(acceptor) }
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        let _ = self.acceptor.take().unwrap().join();
    }
}

/// A key with a certificate of its own, and that certificate as PEM.
fn signer() -> (Signer, String) {
    let own = rcgen::generate_simple_self_signed(vec!["tokens".into()]).unwrap();
    let pkcs8 = own.signing_key.serialize_der();
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new()).unwrap();
    (Signer { key, cert: STANDARD.encode(own.cert.der()) }, own.cert.pem())
}

/// One request a connection.
fn answer<C: Connection>(
    mut connection: BufReader<C>,
    signer: &Signer,
    issued: &AtomicUsize,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut first, mut authorized) = (String::new(), false);
    connection.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? <= 2 {
            break;
        }
        let basic = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        authorized |= line.trim_end().split_once(": ").is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && value == format!("Basic {basic}")
        });
    }
    let query =
        first.split(' ').nth(1).and_then(|target| target.split_once('?')).map_or("", |(_, query)| query);
    asked.lock().unwrap().push(query.into());
    let (status, body) = match authorized {
        true => {
            issued.fetch_add(1, Ordering::SeqCst);
            ("200 OK", json!({"token": signer.token(query), "expires_in": 300}))
        }
        false => ("401 Unauthorized", json!({"details": "who are you"})),
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let connection = connection.get_mut();
    connection.write_all((head + &body).as_bytes())?;
    connection.flush()
}

impl Signer {
    fn token(&self, query: &str) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.cert]});
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "jti": "1",
            "nbf": now - 60, "iat": now - 60, "exp": now + 300, "access": access(query),
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Everything that is asked for, as `scope=repository:name:pull,push`.
fn access(query: &str) -> Vec<Value> {
    url::form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == "scope")
        .flat_map(|(_, scope)| scope.split(' ').map(str::to_string).collect::<Vec<_>>())
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
        })
        .collect()
}
