//! How much is proven by reading it back, as an operator says it. Pure.

/// How much of the disk is read back and compared before it may boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Both ends, tables, and up to 128 samples of what was written or zeroed.
    #[default]
    Sample,
    /// Every byte of the image, zeros included.
    All,
}

impl std::str::FromStr for Verify {
    type Err = String;

    fn from_str(text: &str) -> Result<Verify, String> {
        match text {
            "sample" => Ok(Verify::Sample),
            "all" => Ok(Verify::All),
            other => Err(format!("'{other}' is not known; use sample or all")),
        }
    }
}
