//! What a check of the daemon's put aside, fetched anew in the background.

use std::sync::Arc;

use crate::pull::Pull;
use crate::store::Store;

/// Goes on until dropped. To be awaited on the pull runtime.
pub async fn run(store: Arc<Store>, pull: Arc<Pull>) {
    loop {
        let lost = store.lost().await;
        let of = lost.len();
        tracing::info!("fetching anew {of} blobs and manifests that a check put aside");
        let failed = pull.restore(lost).await;
        let done = of - failed.len();
        match failed.first() {
            None => tracing::info!("fetched anew all {of} that a check put aside"),
            Some((lost, error)) => tracing::error!(
                "fetched anew {done} of {of} that a check put aside; the others come when they are asked for. The first: \
                 \"{}\": {error}",
                lost.image
            ),
        }
    }
}
