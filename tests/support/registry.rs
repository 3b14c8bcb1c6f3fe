//! docker-registry (Debian's) as an upstream, three ways, and what it takes to push to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::client::{Connection, Request, Response, connect, get};
use super::layout::{Blob, Image, Manifest};
use super::process::{Process, free_port, succeed, tied};
use super::tls::Ca;
use super::token::{ISSUER, SERVICE, TokenServer};

pub const USER: &str = "puller";
pub const PASSWORD: &str = "correct horse";

pub struct Registry {
    pub addr: SocketAddr,
    pub ca: Option<Arc<Ca>>,
    pub tokens: Option<TokenServer>,
    process: Process,
    dir: TempDir,
}

impl Registry {
    pub fn plain() -> Self {
        Self::start(None, |_| String::new(), None)
    }

    pub fn with_htpasswd(ca: &Arc<Ca>) -> Self {
        let auth = |dir: &Path| {
            let mut htpasswd = tied("htpasswd");
            htpasswd.args(["-Bbn", USER, PASSWORD]);
            let file = dir.join("htpasswd");
            std::fs::write(&file, succeed(htpasswd)).unwrap();
            format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", file.display())
        };
        Self::start(Some(ca.clone()), auth, None)
    }

    pub fn with_tokens(ca: &Arc<Ca>) -> Self {
        let tokens = TokenServer::start(ca);
        let (realm, cert) = (format!("https://localhost:{}/token", tokens.addr.port()), tokens.cert.clone());
        let auth = |dir: &Path| {
            let bundle = dir.join("tokens.pem");
            std::fs::write(&bundle, cert).unwrap();
            format!(
                "auth:\n  token:\n    realm: {realm}\n    service: {SERVICE}\n    issuer: {ISSUER}\n    \
                 rootcertbundle: {}\n",
                bundle.display()
            )
        };
        Self::start(Some(ca.clone()), auth, Some(tokens))
    }

    fn start(ca: Option<Arc<Ca>>, auth: impl FnOnce(&Path) -> String, tokens: Option<TokenServer>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: \
             {addr}\n  secret: tests\n",
            dir.path().join("content").display()
        );
        if let Some(ca) = &ca {
            let (leaf, cert, key) = (ca.leaf(), dir.path().join("cert.pem"), dir.path().join("key.pem"));
            std::fs::write(&cert, leaf.cert).unwrap();
            std::fs::write(&key, leaf.key).unwrap();
            config += &format!("  tls:\n    certificate: {}\n    key: {}\n", cert.display(), key.display());
        }
        config += &auth(dir.path());
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = tied("docker-registry");
        command.arg("serve").arg(&file);
        let mut process = Process::spawn(command, &dir.path().join("log"));
        process.wait_until("listening", || std::net::TcpStream::connect(addr).is_ok());
        Self { addr, ca, tokens, process, dir }
    }

    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.addr.port())
    }

    /// The `[[registries]]` entry that makes a daemon's `name` this registry.
    pub fn entry(&self, name: &str) -> String {
        let mut entry = format!("[[registries]]\nname = \"{name}\"\nurl = \"{}\"\n", self.url());
        if let Some(ca) = &self.ca {
            let file = self.dir.path().join("ca.pem");
            std::fs::write(&file, ca.pem()).unwrap();
            entry += &format!("tls = {{ ca = \"{}\" }}\n", file.display());
            entry += &format!("auth = {{ user = \"{USER}\", password = \"{PASSWORD}\" }}\n");
        }
        entry
    }

    pub fn stop(&mut self) {
        self.process.kill();
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn push(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.blobs() {
            self.push_blob(repository, blob);
        }
        self.push_manifest(repository, tag, &image.manifest);
    }

    pub fn push_blob(&self, repository: &str, blob: &Blob) {
        let begun =
            self.send(repository, Request::new("POST", &format!("/v2/{repository}/blobs/uploads/"))).is(202);
        let location = begun.header("location").unwrap();
        let target = &location[location.find("/v2/").unwrap()..];
        let join = if target.contains('?') { '&' } else { '?' };
        let put = Request::new("PUT", &format!("{target}{join}digest={}", blob.digest)).body(blob.bytes());
        self.send(repository, put).is(201);
    }

    pub fn push_manifest(&self, repository: &str, tag: &str, manifest: &Manifest) {
        let reference = if tag.is_empty() { &manifest.digest } else { tag };
        let put = Request::new("PUT", &format!("/v2/{repository}/manifests/{reference}"))
            .header("Content-Type", &manifest.media_type)
            .body(manifest.bytes.to_vec());
        self.send(repository, put).is(201);
    }

    /// Gives another tag to a manifest that was pushed, in the registry's own folder: a push takes a while.
    pub fn tag(&self, repository: &str, tag: &str, manifest: &Manifest) {
        let content = self.dir.path().join("content/docker/registry/v2/repositories");
        let current = content.join(repository).join("_manifests/tags").join(tag).join("current");
        std::fs::create_dir_all(&current).unwrap();
        std::fs::write(current.join("link"), &manifest.digest).unwrap();
    }

    /// Sends with whatever this registry wants to see.
    pub fn send(&self, repository: &str, request: Request) -> Response {
        let host = format!("localhost:{}", self.addr.port());
        let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let authorization = match (&self.tokens, &self.ca) {
            (Some(tokens), Some(ca)) => {
                let scope = format!("/token?service=x&scope=repository:{repository}:pull,push");
                let token = get(&scope).header("Authorization", &basic);
                let answer = token.open_on(ca.connect(tokens.addr), &host).whole().is(200);
                let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                Some(format!("Bearer {}", json["token"].as_str().unwrap()))
            }
            (None, Some(_)) => Some(basic),
            _ => None,
        };
        let mut request = request.header("Connection", "close");
        if let Some(value) = authorization {
            request = request.header("Authorization", &value);
        }
        request.open_on(self.connection(), &host).whole()
    }

    fn connection(&self) -> Box<dyn Connection> {
        match &self.ca {
            Some(ca) => ca.connect(self.addr),
            None => connect(self.addr),
        }
    }
}
