//! How long an image may take on its way, and how often it is asked for. Values alone; tests have shorter ones. Pure.

use ferric_common::limits;
use std::time::Duration;

/// How long an image server may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// TCP and TLS together, for one address.
    pub connect: Duration,
    /// No byte for this long.
    pub silence: Duration,
    /// Fewer than `slow_rate` bytes a second over `slow_time`.
    pub slow_rate: u64,
    pub slow_time: Duration,
    /// The whole write's transfers, those of failed attempts included; none: the rate and the file's length bound them.
    pub whole: Option<Duration>,
    /// Tries without progress before giving up, and the first pause between them (doubles).
    pub tries: u32,
    pub pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(20),
            silence: limits::DOWNLOAD_SILENCE,
            slow_rate: limits::DOWNLOAD_SLOW_RATE,
            slow_time: limits::DOWNLOAD_SLOW_TIME,
            whole: None,
            tries: limits::DOWNLOAD_TRIES,
            pause: Duration::from_secs(1),
        }
    }
}

/// How patient the pipeline is. The defaults are those of `limits.rs`; tests use shorter ones.
#[derive(Clone, Debug)]
pub struct Patience {
    pub timeouts: Timeouts,
    /// Attempts to write the whole image (a changed file, all URLs failing in mid-transfer).
    pub attempts: u32,
    /// First pause between attempts; doubles.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            timeouts: Timeouts::default(),
            attempts: limits::DOWNLOAD_TRIES,
            pause: Duration::from_secs(1),
        }
    }
}
