//! What commands do with the cache.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::command::{Command, Tell};
use crate::store::Store;
use crate::store::care::{
    BlobsRequest, CareError, CheckReport, CheckRequest, Finding, Folder, ListReport, ListRequest, ListedBlob,
    ListedImage, Pace, PinReport, PinRequest, PinsReport, PruneReport, PruneRequest, RepairRequest,
};

impl Command for ListRequest {
    const PATH: &'static str = "/images";
    type On = Folder;
    type Item = ListedImage;
    type Done = ListReport;

    fn run(
        &self,
        on: &Folder,
        pace: &Pace<'_>,
        tell: &mut Tell<'_, ListedImage>,
    ) -> Result<ListReport, CareError> {
        on.list(self, pace, tell)
    }
}

impl Command for BlobsRequest {
    const PATH: &'static str = "/blobs";
    type On = Folder;
    type Item = ListedBlob;
    type Done = ListReport;

    fn run(
        &self,
        on: &Folder,
        pace: &Pace<'_>,
        tell: &mut Tell<'_, ListedBlob>,
    ) -> Result<ListReport, CareError> {
        on.list_blobs(self, pace, tell)
    }
}

impl Command for PruneRequest {
    const PATH: &'static str = "/prune";
    const ALONE: bool = true;
    type On = Arc<Store>;
    /// The full name of an image that goes.
    type Item = String;
    type Done = PruneReport;

    fn run(
        &self,
        on: &Arc<Store>,
        pace: &Pace<'_>,
        tell: &mut Tell<'_, String>,
    ) -> Result<PruneReport, CareError> {
        on.prune(self, pace, &mut |image| {
            if !self.dry_run {
                tracing::debug!("pruned \"{image}\"");
            }
            // It asks its pace whether that was the last one.
            let _ = tell(image.to_string());
        })
    }

    fn entry(&self, done: &PruneReport) -> Option<String> {
        (!self.dry_run).then(|| done.to_string())
    }
}

impl Command for PinRequest {
    const PATH: &'static str = "/pins";
    type On = Arc<Store>;
    type Item = PinReport;
    type Done = PinsReport;

    fn run(
        &self,
        on: &Arc<Store>,
        pace: &Pace<'_>,
        tell: &mut Tell<'_, PinReport>,
    ) -> Result<PinsReport, CareError> {
        if self.images.is_empty() {
            return Err(CareError::NothingChosen);
        }
        let mut all = PinsReport::default();
        for image in &self.images {
            pace.step(0)?;
            let report = on.pin(image, self.action)?;
            all.changed += u64::from(report.changed);
            if tell(report) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(all)
    }

    fn entry(&self, done: &PinsReport) -> Option<String> {
        let names: Vec<String> = self.images.iter().map(ToString::to_string).collect();
        (done.changed > 0).then(|| format!("{}ned {}", self.action.as_str(), names.join(", ")))
    }
}

impl Command for CheckRequest {
    const PATH: &'static str = "/check";
    type On = Folder;
    type Item = Finding;
    type Done = CheckReport;

    fn run(
        &self,
        on: &Folder,
        pace: &Pace<'_>,
        tell: &mut Tell<'_, Finding>,
    ) -> Result<CheckReport, CareError> {
        on.check(pace, &mut |finding| {
            let _ = tell(finding.clone());
        })
    }
}

impl Command for RepairRequest {
    const PATH: &'static str = "/repair";
    const ALONE: bool = true;
    type On = Arc<Store>;
    type Item = Finding;
    type Done = CheckReport;

    fn run(
        &self,
        on: &Arc<Store>,
        pace: &Pace<'_>,
        tell: &mut Tell<'_, Finding>,
    ) -> Result<CheckReport, CareError> {
        on.check_and_repair(pace, &mut |finding| {
            let _ = tell(finding.clone());
        })
    }

    fn entry(&self, done: &CheckReport) -> Option<String> {
        Some(done.to_string())
    }
}
