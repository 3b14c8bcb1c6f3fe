//! `ociregistry pin` and `ociregistry unpin`

use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::admin::{AdminOptions, open_store};
use super::{Error, GlobalOptions, printing};
use crate::oci::Image;
use crate::store::care::{PinAction, PinReport, PinRequest};

/// Keep images whatever is pruned
///
/// A pin holds for a name: where its tag moves, what it points to then is kept. What is not in the cache yet is kept
/// once it is pulled. `ociregistry list --pinned` shows all pins.
#[derive(Args, Debug)]
pub struct Pin {
    #[command(flatten)]
    images: Images,
}

/// Let pinned images be pruned like others
#[derive(Args, Debug)]
pub struct Unpin {
    #[command(flatten)]
    images: Images,
}

#[derive(Args, Debug)]
struct Images {
    /// Images as in a pull, such as registry.k8s.io/pause:3.10, quay.io/team/a@sha256:… or nginx, which is docker.io's
    /// whatever default_ns is
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<Image>,
    #[command(flatten)]
    admin: AdminOptions,
}

impl Pin {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        self.images.change(global, PinAction::Pin)
    }
}

impl Unpin {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        self.images.change(global, PinAction::Unpin)
    }
}

impl Images {
    fn change(self, global: &GlobalOptions, action: PinAction) -> Result<(), Error> {
        let open = |path: &Path| Ok(Arc::new(open_store(path)?));
        let request = PinRequest { action, images: self.images };
        printing(|say| {
            let mut each = |report: PinReport| {
                let what = match (report.pinned, report.changed) {
                    (true, true) if !report.cached => "is pinned; it is not in the cache yet",
                    (true, true) => "is pinned",
                    (true, false) => "was pinned already",
                    (false, true) => "is not pinned any more",
                    (false, false) => "was not pinned",
                };
                say(format!("{} {what}\n", report.image));
                Ok(())
            };
            self.admin.command(global, &request, open, &mut each).map(drop)
        })
    }
}
