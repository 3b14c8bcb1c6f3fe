//! `ociregistry serve`

use clap::Args;

use super::{Error, GlobalOptions, absolute, add, banner, load};
use crate::config::{Override, Reader, Source};

const EXAMPLES: &str = "\
Examples:
  On every address of this host, with a log that tells what is pulled:
    ociregistry serve --host 0.0.0.0 --log-level info

  Without any upstream, from what the cache holds:
    ociregistry serve --air-gapped

  A first pull without any upstream, out of the program itself:
    ociregistry serve --hello-world --air-gapped
    docker run --rm localhost:8080/docker.io/library/hello-world

  For requests that name no registry, another one than docker.io:
    ociregistry serve --default-ns quay.io";

/// Serve images to clients, pulling from upstream what the cache does not have
///
/// Listens on 127.0.0.1:8080 unless told otherwise, and serves until it gets SIGTERM or SIGINT. A client names
/// the upstream in the path (localhost:8080/registry.k8s.io/pause:3.9), in the query (?ns=registry.k8s.io, as
/// containerd does for a mirror) or in the header X-Registry; otherwise it is --default-ns.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    options: ServeOptions,
}

/// Options that stand for keys of the file. Their values are checked where the file's are.
#[derive(Args, Debug)]
pub struct ServeOptions {
    /// The port to listen on [default: 8080]
    #[arg(long)]
    port: Option<String>,
    /// The IP address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// The user to become when root starts it [default: ociregistry]
    #[arg(long)]
    user: Option<String>,
    /// The group to become with --user [default: ociregistry]
    #[arg(long)]
    group: Option<String>,
    /// The operating system whose images are prefetched [default: this host's]
    #[arg(long)]
    os: Option<String>,
    /// The architecture whose images are prefetched, such as amd64 [default: this host's]
    #[arg(long)]
    arch: Option<String>,
    /// Milliseconds of silence after which an upstream is given up [default: 60000]
    #[arg(long, value_name = "MS")]
    pull_timeout: Option<String>,
    /// Ask upstream each time for the tag `latest`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    always_pull_latest: Option<String>,
    /// Never ask an upstream: serve what the cache holds
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    air_gapped: Option<String>,
    /// The registry of a request that names none; "" refuses such requests [default: docker.io]
    #[arg(long, value_name = "REGISTRY")]
    default_ns: Option<String>,
    /// A port for health checks, on --host: GET /health answers 200 while pulls would work [default: none]
    #[arg(long, value_name = "PORT")]
    health: Option<String>,
    /// A port for metrics (not supported yet)
    #[arg(long, value_name = "PORT")]
    metrics: Option<String>,
    /// Lists of images to have in the cache before it says that it is ready: files and patterns, with commas between them
    #[arg(long, value_name = "LISTS")]
    preload_images: Option<String>,
    /// Serve docker.io/library/hello-world:latest out of the program itself
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    hello_world: Option<String>,
}

impl ServeOptions {
    pub fn into_overrides(self) -> Vec<Override> {
        let mut overrides = Vec::new();
        add(&mut overrides, "port", "--port", self.port);
        add(&mut overrides, "host", "--host", self.host);
        add(&mut overrides, "user", "--user", self.user);
        add(&mut overrides, "group", "--group", self.group);
        add(&mut overrides, "os", "--os", self.os);
        add(&mut overrides, "arch", "--arch", self.arch);
        add(&mut overrides, "pull_timeout", "--pull-timeout", self.pull_timeout);
        add(&mut overrides, "always_pull_latest", "--always-pull-latest", self.always_pull_latest);
        add(&mut overrides, "air_gapped", "--air-gapped", self.air_gapped);
        add(&mut overrides, "default_ns", "--default-ns", self.default_ns);
        add(&mut overrides, "health", "--health", self.health);
        add(&mut overrides, "metrics", "--metrics", self.metrics);
        add(
            &mut overrides,
            "preload_images",
            "--preload-images",
            self.preload_images.as_deref().map(absolute_list),
        );
        add(&mut overrides, "hello_world", "--hello-world", self.hello_world);
        overrides
    }
}

/// What is typed is relative to where it is typed, each part for itself.
fn absolute_list(text: &str) -> String {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(absolute).collect::<Vec<_>>().join(",")
}

impl Serve {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let source = Source { reader: Reader::Daemon, ..global.source(self.options.into_overrides()) };
        let configuration = load(&source)?;
        Ok(crate::daemon::serve(source, configuration, banner::banner)?)
    }
}
