//! The peer: nginx (Debian's), serving the same bytes from files, or as a caching proxy in our place.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::content::Content;

pub struct Nginx {
    pub address: SocketAddr,
    child: Child,
}

impl Nginx {
    pub fn of_files(folder: &Path, content: &Content) -> Self {
        for (path, (_, bytes)) in &content.files {
            let file = folder.join("files").join(&path[1..]);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("make a folder");
            std::fs::write(file, bytes).expect("write a file");
        }
        Self::start(
            folder,
            "open_file_cache max=20000 inactive=60s; open_file_cache_valid 60s;",
            &format!("root {}/files;", folder.display()),
        )
    }

    /// As people put it before a registry. It verifies nothing and syncs nothing.
    pub fn caching_proxy(folder: &Path, upstream: SocketAddr) -> Self {
        std::fs::create_dir_all(folder).expect("make a folder");
        Self::start(
            folder,
            &format!(
                "proxy_cache_path {}/cache levels=1:2 keys_zone=all:32m max_size=8g;
                 upstream far {{ server {upstream}; keepalive 64; }}",
                folder.display()
            ),
            "location / {
               proxy_pass http://far; proxy_http_version 1.1; proxy_set_header Connection '';
               proxy_cache all; proxy_cache_valid 200 1h; proxy_cache_lock on;
             }",
        )
    }

    fn start(folder: &Path, http: &str, server: &str) -> Self {
        let root = folder.display();
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let configuration = format!(
            "daemon off; user root; worker_processes auto; pid {root}/pid; error_log {root}/error.log;
             events {{ worker_connections 1024; }}
             http {{
               access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000;
               default_type application/octet-stream;
               client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
               uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
               {http}
               server {{ listen {address}; {server} }}
             }}"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration).expect("write a file");
        let child =
            Command::new("nginx").arg("-c").arg(&file).spawn().expect("nginx: apt-get install nginx-light");
        while TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { address, child }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
