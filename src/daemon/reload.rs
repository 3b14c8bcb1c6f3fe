//! Reading the configuration anew, and putting it in force without dropping a connection.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::care::Care;
use super::log::Log;
use super::systemd::{News, Systemd};
use super::watch::Gauges;
use crate::admin::{Reloaded, Token};
use crate::config::{Change, Configuration, Listen, Source};
use crate::pull::Pull;
use crate::serve::{Responder, TlsSwitch, server_config};

/// The parts that a reload changes, and what was read for them.
pub struct Reloader {
    pub source: Source,
    /// What the process started with: some of it holds to its end.
    pub started: Configuration,
    pub current: Configuration,
    /// Where clients reach us from start to end, whoever opened that.
    pub open: Vec<Listen>,
    pub pull: Arc<Pull>,
    pub responder: Arc<Responder>,
    pub care: Arc<Care>,
    pub tls: TlsSwitch,
    /// Of commands over the network, where any are taken.
    pub token: Option<Arc<Token>>,
    pub log: Arc<Log>,
}

impl Reloader {
    /// Reloads for each SIGHUP and each request, one after the other, until dropped.
    pub async fn run(
        mut self,
        mut hangup: Signal,
        mut requests: mpsc::Receiver<oneshot::Sender<Reloaded>>,
        gauges: Arc<Gauges>,
        systemd: Systemd,
    ) {
        loop {
            let request = tokio::select! {
                Some(()) = hangup.recv() => None,
                Some(request) = requests.recv() => Some(request),
                else => return,
            };
            systemd.tell(News::Reloading);
            // It reads files, and those may be anywhere.
            let work = tokio::task::spawn_blocking(move || {
                let reloaded = self.reload();
                (self, reloaded)
            });
            let Ok((back, reloaded)) = work.await else { return };
            self = back;
            report(&reloaded);
            gauges.reloaded(reloaded.clone());
            systemd.tell(News::Reloaded(gauges.at_hand().line()));
            if let Some(request) = request {
                // Who asked may have gone.
                let _ = request.send(reloaded);
            }
        }
    }

    /// All of it is put in force, or nothing. Blocks.
    fn reload(&mut self) -> Reloaded {
        let mut reloaded = Reloaded {
            at: Timestamp::now(),
            refused: None,
            changed: Vec::new(),
            needs_restart: Vec::new(),
            notes: Vec::new(),
        };
        if let Err(error) = self.log.reopen() {
            reloaded
                .notes
                .push(format!("the log file cannot be opened anew, and goes on as it was: {error}"));
        }
        let new = self.source.load().map_err(|error| error.to_string());
        if let Err(reason) = new.and_then(|new| self.put_in_force(new, &mut reloaded)) {
            reloaded.refused = Some(reason);
        }
        reloaded
    }

    /// Everything that can fail comes first; behind it, each part is given what is new to it.
    fn put_in_force(&mut self, new: Configuration, reloaded: &mut Reloaded) -> Result<(), String> {
        let settings = &new.settings;
        // The file was held against its own addresses, and those may not be the ones that are open.
        if let Some(objection) = self.open.iter().find_map(|listen| settings.objection(listen)) {
            return Err(format!("{objection}. It stays open until a restart, whatever the file says now"));
        }
        let upstreams = self.pull.upstreams().renewed(settings).map_err(|error| error.to_string())?;
        let tls =
            settings.server_tls.as_ref().map(server_config).transpose().map_err(|error| error.to_string())?;

        self.log.set_level(settings.log.level);
        self.responder.reload(settings);
        self.care.reload(settings);
        self.tls.turn(tls);
        if let (Some(token), Some(admin)) = (&self.token, &settings.admin) {
            token.renew(&admin.token);
        }
        self.pull.reload(settings.clone(), upstreams);

        let lines = |changes: Vec<Change>, restart: bool| -> Vec<String> {
            let wanted = changes.into_iter().filter(|change| change.needs_restart() == restart);
            wanted.map(|change| change.to_string()).collect()
        };
        reloaded.changed = lines(self.current.changes(&new), false);
        reloaded.needs_restart = lines(self.started.changes(&new), true);
        let credentials = new.in_force.credential_keys();
        new.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        reloaded.notes.extend(new.warnings.iter().map(|warning| format!("warning: {warning}")));
        reloaded.notes.extend(credentials.map(|key| {
            format!(
                "{key}: systemd handed this credential over at the start, and a newer one only at the next"
            )
        }));
        self.current = new;
        Ok(())
    }
}

fn report(reloaded: &Reloaded) {
    match &reloaded.refused {
        Some(_) => tracing::error!("{reloaded}"),
        None => tracing::info!("the configuration was read anew\n{reloaded}"),
    }
}
