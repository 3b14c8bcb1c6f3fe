//! The parts that pull, without those that serve: for commands on a cache that no daemon has open.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Handle, Runtime};

use super::account::Account;
use super::privileged::make_folder;
use super::{ServeError, open_store, pull_runtime, raise_open_files, via};
use crate::config::Settings;
use crate::pull::Pull;
use crate::store::Store;
use crate::upstream::Upstreams;

/// A cache that is written to by this process.
pub struct Alone {
    pub pull: Arc<Pull>,
    store: Arc<Store>,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl Alone {
    /// Opens the cache, or makes it, as the daemon would: by the account that it would be. Blocks for up to 10 s when
    /// another process has it. To be called once in a process, before there is another thread.
    pub fn open(settings: &Settings) -> Result<Self, ServeError> {
        let account = Account::find(&settings.account)?;
        make_folder(&settings.image_path, &account)?;
        raise_open_files();
        account.assume()?;
        let store = Arc::new(open_store(&settings.image_path, &account)?);
        let upstreams = Upstreams::new(settings, &format!("1.1 {}", via(&store)))?;
        let runtime = pull_runtime()?;
        let handle = runtime.handle().clone();
        let pull = Pull::new(settings.clone(), store.clone(), upstreams, handle.clone());
        Ok(Self { pull, store, handle, runtime: Mutex::new(Some(runtime)) })
    }

    /// Where pulls are awaited.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends what is under way; what was downloaded of it is resumed when it is asked for again. When this returns,
    /// all that is whole is on disk. Blocks.
    pub fn close(&self) {
        let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        runtime.block_on(self.pull.settle());
        runtime.shutdown_background();
        self.store.close();
    }
}
