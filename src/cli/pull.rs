//! `ociregistry pull`

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::admin::AdminOptions;
use super::cache::{Cache, Failure};
use super::progress::Progress;
use super::{Error, GlobalOptions, tell};
use crate::admin::PullRequest;
use crate::admin::words::Bytes;
use crate::config::{images_in, read_images};
use crate::oci::{Image, InvalidName, Platform};
use crate::pull::{IMAGES_AT_ONCE, Platforms, Step, Warmed};

/// Events that wait to be shown.
const WAITING: usize = 256;

const EXAMPLES: &str = "\
Examples:
  Two images, whole, for this host's platform:
    ociregistry pull nginx:1.27 registry.k8s.io/pause:3.10

  All of a list, one a line, for whatever host takes the cache:
    ociregistry pull --file images.list --all-platforms

  What a cluster runs:
    kubectl get pods -A -o jsonpath='{..image}' | tr ' ' '\\n' | ociregistry pull -

  What came, for a script:
    ociregistry pull --json --file images.list | jq -r 'select(.error) | .image'

Exit codes: 0 all of them are in the cache, 1 some are not: which and why is printed at the end; 75 the daemon ended \
meanwhile, 130 interrupted.";

/// Bring images into the cache before anybody asks for them
///
/// The running daemon fetches what is missing; where none runs, this command does it itself, with what the
/// configuration says of registries; `unlisted`, `allow` and `deny` judge clients only, not what is named here. An
/// image that cannot be had does not stop the others. When it is interrupted, what was downloaded is kept; a daemon goes on with downloads that it has begun, or pauses them, as `abandoned` says.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Pull {
    /// Images as in a pull, such as registry.k8s.io/pause:3.10, quay.io/team/a@sha256:… or nginx, which is docker.io's
    /// whatever default_ns is; - is a list on the standard input
    #[arg(required_unless_present = "file", value_name = "IMAGE")]
    images: Vec<Named>,
    /// A list of images, one a line, with comments behind #; - is the standard input
    #[arg(long, value_name = "LIST")]
    file: Vec<PathBuf>,
    /// Of images for several platforms, the one for this platform [default: os and arch of the configuration]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms")]
    platform: Option<Platform>,
    /// Of images for several platforms, all
    #[arg(long)]
    all_platforms: bool,
    /// Print one JSON object a line for each image; sizes are in bytes
    #[arg(long)]
    json: bool,
    /// Print only what failed
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

/// What an argument stands for.
#[derive(Clone, Debug)]
enum Named {
    Image(Image),
    Input,
}

impl FromStr for Named {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text == "-" { Ok(Self::Input) } else { text.parse().map(Self::Image) }
    }
}

/// What the threads that pull tell the one that prints.
enum Event {
    Of(Arc<Image>, What),
    /// All have ended.
    Done,
    Interrupted,
}

/// What has become of an image.
enum What {
    Begun,
    Step(Step),
    Ended(Result<Warmed, Failure>),
}

impl Pull {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let images = Arc::new(self.images()?);
        let cache = Arc::new(Cache::open(&self.admin, global)?);
        let platforms = match &self.platform {
            _ if self.all_platforms => Some(Platforms::All),
            platform => platform.clone().map(Platforms::Only),
        };
        let events = begin(&cache, &images, platforms).map_err(Error::Thread)?;
        let done = self.show(images.len(), &events);
        cache.close();
        done
    }

    /// All that are named, each once.
    fn images(&self) -> Result<Vec<Image>, Error> {
        let list = |read: Result<_, Vec<String>>| read.map_err(|wrong| Error::List(wrong.join("\n")));
        let mut images = Vec::new();
        for named in &self.images {
            match named {
                Named::Image(image) => images.push(image.clone()),
                Named::Input => images.extend(list(standard_input())?),
            }
        }
        for file in &self.file {
            images.extend(list(if file == Path::new("-") { standard_input() } else { read_images(file) })?);
        }
        let mut seen = HashSet::new();
        images.retain(|image| seen.insert(image.clone()));
        Ok(images)
    }

    /// Prints until all have ended.
    fn show(&self, of: usize, events: &Receiver<Event>) -> Result<(), Error> {
        let mut bars = if self.quiet || self.json { None } else { Progress::on_terminal() };
        let mut summary = Summary { of, done: 0, fetched: 0, failed: Vec::new(), ended: false };
        loop {
            let (image, what) = match events.recv() {
                Ok(Event::Of(image, what)) => (image, what),
                Ok(Event::Done) | Err(_) => break,
                Ok(Event::Interrupted) => {
                    bars.iter_mut().for_each(Progress::clear);
                    return Err(Error::Interrupted(format!("interrupted: {summary}")));
                }
            };
            if let Some(bars) = &mut bars {
                match &what {
                    What::Begun => bars.begun(&image),
                    What::Step(step) => bars.step(&image, step),
                    What::Ended(_) => bars.ended(&image),
                }
            }
            if let What::Ended(end) = what {
                if !self.quiet {
                    let line = self.line(&image, &end);
                    match &bars {
                        Some(bars) => bars.above(|| tell(&line))?,
                        None => tell(&line)?,
                    }
                }
                summary.add(&image, end);
            }
        }
        if !summary.failed.is_empty() {
            let failed = if summary.ended { Error::Ended } else { Error::Failed };
            return Err(failed(summary.to_string()));
        }
        if !self.quiet && !self.json && of != 1 {
            tell(&format!("{summary}\n"))?;
        }
        Ok(())
    }

    fn line(&self, image: &Image, end: &Result<Warmed, Failure>) -> String {
        let image = image.to_string();
        match end {
            Ok(Warmed { digest, manifests, blobs, bytes, fetched }) if self.json => {
                let value = json!({
                    "image": image, "digest": digest, "manifests": manifests, "blobs": blobs, "bytes": bytes,
                    "fetched": fetched,
                });
                format!("{value}\n")
            }
            Err(error) if self.json => format!("{}\n", json!({ "image": image, "error": error.reason })),
            Ok(Warmed { bytes, fetched: 0, .. }) => format!("{image}: {}, here already\n", Bytes(*bytes)),
            Ok(Warmed { bytes, fetched, .. }) if fetched == bytes => {
                format!("{image}: {} fetched\n", Bytes(*bytes))
            }
            Ok(Warmed { bytes, fetched, .. }) => {
                format!("{image}: {}, {} of it fetched\n", Bytes(*bytes), Bytes(*fetched))
            }
            Err(error) => format!("{image}: failed: {error}\n"),
        }
    }
}

/// What it came to.
struct Summary {
    of: usize,
    done: usize,
    fetched: u64,
    failed: Vec<(String, String)>,
    /// The daemon has, before all that is left.
    ended: bool,
}

impl Summary {
    fn add(&mut self, image: &Image, end: Result<Warmed, Failure>) {
        match end {
            Ok(warmed) => {
                self.done += 1;
                self.fetched += warmed.fetched;
            }
            Err(error) => {
                self.ended |= error.ended;
                self.failed.push((image.to_string(), error.reason));
            }
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { of, done, fetched, failed, ended: _ } = self;
        write!(f, "{done} of {of} images in the cache, {} fetched", Bytes(*fetched))?;
        if !failed.is_empty() {
            write!(f, "; {} failed:", failed.len())?;
        }
        failed.iter().try_for_each(|(image, error)| write!(f, "\n  {image}: {error}"))
    }
}

/// Starts the threads that pull, and one that listens for signals.
fn begin(
    cache: &Arc<Cache>,
    images: &Arc<Vec<Image>>,
    platforms: Option<Platforms>,
) -> io::Result<Receiver<Event>> {
    let (sender, events) = sync_channel(WAITING);
    listen_for_signals(sender.clone())?;
    let next = Arc::new(AtomicUsize::new(0));
    let left = Arc::new(AtomicUsize::new(IMAGES_AT_ONCE));
    for _ in 0..IMAGES_AT_ONCE {
        let (cache, images, platforms) = (cache.clone(), images.clone(), platforms.clone());
        let (next, left, sender) = (next.clone(), left.clone(), sender.clone());
        thread::Builder::new().name("image".to_owned()).spawn(move || {
            while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                let image = Arc::new(image.clone());
                let tell = |what: What| sender.send(Event::Of(image.clone(), what)).is_ok();
                // Who prints may have gone.
                if !tell(What::Begun) {
                    break;
                }
                let request = PullRequest { image: Image::clone(&image), platforms: platforms.clone() };
                let end = cache.pull(&request, |step| {
                    tell(What::Step(step));
                });
                tell(What::Ended(end));
            }
            // The last one to end says so.
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                let _ = sender.send(Event::Done);
            }
        })?;
    }
    Ok(events)
}

/// The first one ends it in good order, the second one at once.
fn listen_for_signals(sender: SyncSender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut told = async || {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            told().await;
            let waiting = tokio::task::spawn_blocking(move || sender.send(Event::Interrupted).is_ok());
            told().await;
            drop(waiting);
            std::process::exit(130);
        });
    })?;
    Ok(())
}

fn standard_input() -> Result<Vec<Image>, Vec<String>> {
    let mut bytes = Vec::new();
    match io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => images_in("standard input", &bytes),
        Err(error) => Err(vec![format!("the standard input cannot be read: {error}")]),
    }
}
