//! `ociregistry refresh`

use clap::Args;
use serde_json::json;

use super::admin::AdminOptions;
use super::cache::{Cache, Failure};
use super::{Error, GlobalOptions, tell};
use crate::oci::Image;
use crate::pull::Refreshed;

const EXAMPLES: &str = "\
Examples:
  A tag was pushed anew, and nobody wants to wait until it is asked for (tag_ttl):
    ociregistry refresh registry.example:5000/team/app:latest

Exit codes: 0 upstream has answered for all, 1 not for all, 75 the daemon ended meanwhile.";

/// Ask upstream now what tags point at, however fresh they are
///
/// Prints what each pointed at before and points at now. When a tag has moved, its manifest is fetched; its blobs come with
/// the next pull, or with `ociregistry pull`. The running daemon does it; where none runs, this command does.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Refresh {
    /// Images as in a pull, such as registry.k8s.io/pause:3.10 or nginx, which is docker.io's whatever default_ns is
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<Image>,
    /// Print one JSON object a line for each image
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

impl Refresh {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let cache = Cache::open(&self.admin, global)?;
        let (mut failed, mut ended) = (Vec::new(), false);
        for image in &self.images {
            let end = cache.refresh(image);
            if let Err(error) = &end {
                ended |= error.ended;
                failed.push(format!("{image}: {error}"));
            }
            if end.is_ok() || self.json {
                tell(&self.line(image, &end))?;
            }
        }
        cache.close();
        match failed.join("\n") {
            none if none.is_empty() => Ok(()),
            failed if ended => Err(Error::Ended(failed)),
            failed => Err(Error::Failed(failed)),
        }
    }

    fn line(&self, image: &Image, end: &Result<Refreshed, Failure>) -> String {
        let image = image.to_string();
        match end {
            Ok(Refreshed { digest, before }) if self.json => {
                format!("{}\n", json!({ "image": image, "digest": digest, "before": before }))
            }
            Err(error) if self.json => format!("{}\n", json!({ "image": image, "error": error.reason })),
            Ok(Refreshed { digest, before: Some(before) }) if before == digest => {
                format!("{image}: unchanged, {digest}\n")
            }
            Ok(Refreshed { digest, before: Some(before) }) => format!("{image}: {before} → {digest}\n"),
            Ok(Refreshed { digest, before: None }) => format!("{image}: new here, {digest}\n"),
            Err(error) => format!("{image}: {error}\n"),
        }
    }
}
