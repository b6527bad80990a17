//! What a long command tells the console while it runs.

use crate::disk::erase;
use crate::executor::Executor;
use std::time::Duration;

/// How often a long write is mentioned on the console.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Mentions a long write on the console now and then.
pub(super) async fn narrate(executor: &Executor) {
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        if let Some((name, p)) = executor.progress() {
            let total = p.bytes_total.map(|total| format!(" of {}", total >> 20)).unwrap_or_default();
            let note = if p.note.is_empty() { String::new() } else { format!("; {}", p.note) };
            if p.stage == erase::board::STAGE {
                tracing::info!("{name}: {} after {} s{note}", p.stage, p.seconds);
                continue;
            }
            tracing::info!(
                "{name}: {}, {}{total} MiB received, {} MiB written, {} MiB/s, {} s{note}",
                p.stage,
                p.bytes_done >> 20,
                p.bytes_written >> 20,
                p.rate >> 20,
                p.seconds
            );
        }
    }
}
