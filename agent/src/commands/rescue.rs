//! Namespace `rescue`: the machine is handed to its tenant as it runs now, with a password for the user `rescue`.

use super::{Context, Failure, Job, Params, failure};
use serde_json::Value;
use sha_crypt::{PasswordHasher, ShaCrypt};
use zeroize::Zeroizing;

/// Longest password that dropbear reads (its `DROPBEAR_MAX_PASSWORD_LEN`), in bytes.
const LONGEST_PASSWORD: usize = 100;
/// Longest hash taken, in bytes: those that crypt(5) describes are below 256.
const LONGEST_HASH: usize = 384;

/// Answers once the account is there; what follows (the agent's end, the SSH server) waits until the answer is out.
pub fn finalize_rescue(context: &Context, params: &Params, _job: &Job) -> Result<Value, Failure> {
    let hash = password_hash(params).map_err(|error| failure::INVALID_PARAMS.with(error.to_string()))?;
    context.machine.open_to_rescuer(&hash).map_err(|error| {
        failure::COMMAND_EXECUTION
            .with(format!("preparing this machine for the user rescue: {}", failure::chain(&error)))
    })?;
    tracing::info!("the controller hands this machine to its tenant for rescue: the agent ends now");
    context.leave.notify_one();
    Ok(Value::Null)
}

/// What is wrong with the password. Never shows it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum PasswordError {
    #[error("rescue_password is not a text")]
    Kind,
    #[error("rescue_password is empty: anybody could log in; give a password to the rescue request")]
    Empty,
    #[error("hashed is neither true nor false")]
    Flag,
    #[error(
        "rescue_password is longer than {LONGEST_PASSWORD} bytes, which is more than the SSH server reads"
    )]
    Long,
    #[error("rescue_password holds a control character, which nobody can type at a login")]
    Control,
    #[error(
        "rescue_password is said to be hashed, but is not of the form that crypt(5) describes ($6$salt$hash or the like)"
    )]
    Form,
    #[error("hashing rescue_password failed: {0}")]
    Hash(String),
}

/// The line's second field for `/etc/shadow`.
fn password_hash(params: &Params) -> Result<Zeroizing<String>, PasswordError> {
    let password = match params.get("rescue_password") {
        None | Some(Value::Null) => return Err(PasswordError::Empty),
        Some(Value::String(text)) if text.is_empty() => return Err(PasswordError::Empty),
        Some(Value::String(text)) => text,
        Some(_) => return Err(PasswordError::Kind),
    };
    match params.get("hashed") {
        None | Some(Value::Null | Value::Bool(false)) => hash(password),
        Some(Value::Bool(true)) if is_hash(password) => Ok(Zeroizing::new(password.clone())),
        Some(Value::Bool(true)) => Err(PasswordError::Form),
        Some(_) => Err(PasswordError::Flag),
    }
}

/// `$id$…$hash` of the alphabet of crypt(5): no colon or line end that would begin another field or account.
fn is_hash(text: &str) -> bool {
    let fields: Vec<&str> = text.split('$').collect();
    let [before, id, .., hash] = fields.as_slice() else { return false };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "./$=,-_".contains(c);
    before.is_empty()
        && !id.is_empty()
        && fields.len() >= 4
        && hash.len() >= 22
        && text.len() <= LONGEST_HASH
        && text.chars().all(allowed)
}

fn hash(password: &str) -> Result<Zeroizing<String>, PasswordError> {
    if password.len() > LONGEST_PASSWORD {
        return Err(PasswordError::Long);
    }
    if password.chars().any(char::is_control) {
        return Err(PasswordError::Control);
    }
    let mut salt = [0u8; 12]; // 16 characters, the longest that the scheme takes
    getrandom::fill(&mut salt).map_err(|error| PasswordError::Hash(error.to_string()))?;
    let hashed = ShaCrypt::SHA512.hash_password_with_salt(password.as_bytes(), &salt);
    hashed
        .map(|hash| Zeroizing::new(hash.as_str().to_owned()))
        .map_err(|error| PasswordError::Hash(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sha_crypt::PasswordVerifier;

    fn told(params: Value) -> Result<Zeroizing<String>, PasswordError> {
        password_hash(params.as_object().unwrap())
    }

    #[test]
    fn a_plain_password_becomes_a_salted_hash_that_it_alone_fits() {
        let first = told(json!({"rescue_password": "correct horse"})).unwrap();
        let second = told(json!({"rescue_password": "correct horse", "hashed": false})).unwrap();
        assert!(first.starts_with("$6$") && is_hash(&first), "{}", *first);
        assert_ne!(*first, *second, "each has its own salt");
        let parsed = sha_crypt::PasswordHash::new(first.as_str()).unwrap();
        assert!(ShaCrypt::SHA512.verify_password(b"correct horse", &parsed).is_ok());
        assert!(ShaCrypt::SHA512.verify_password(b"correct house", &parsed).is_err());
    }

    #[test]
    fn the_published_vector_of_sha512_crypt_fits() {
        // https://www.akkadia.org/drepper/SHA-crypt.txt, first vector for SHA-512.
        let vector = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
        let parsed = sha_crypt::PasswordHash::new(vector).unwrap();
        assert!(ShaCrypt::SHA512.verify_password(b"Hello world!", &parsed).is_ok());
    }

    #[test]
    fn hashes_of_every_kind_pass_and_nothing_that_could_break_the_file() {
        let recorded = "$5$.YNiqzS64TCHktIX$T8A43ln/o/vnKuPGlGfBW6o7bjs5/rcqDzDS1iXzkY5";
        let yescrypt = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7";
        for hash in [recorded, yescrypt] {
            assert_eq!(*told(json!({"rescue_password": hash, "hashed": true})).unwrap(), hash);
        }
        let long = format!("$6$x${}", "a".repeat(LONGEST_HASH));
        let colon = format!("{recorded}:0:0");
        let line = format!("{recorded}\nroot::0:0");
        for bad in ["secret", "$6$x$", "*", "$6$short", &colon, &line, &long] {
            assert_eq!(
                told(json!({"rescue_password": bad, "hashed": true})),
                Err(PasswordError::Form),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_is_no_password_is_refused_in_words_that_do_not_show_it() {
        let long = "x".repeat(LONGEST_PASSWORD + 1);
        for (params, error) in [
            (json!({}), PasswordError::Empty),
            (json!({"rescue_password": ""}), PasswordError::Empty),
            (json!({"rescue_password": null, "hashed": true}), PasswordError::Empty),
            (json!({"rescue_password": 7}), PasswordError::Kind),
            (json!({"rescue_password": "secret", "hashed": "yes"}), PasswordError::Flag),
            (json!({"rescue_password": "sec\nret"}), PasswordError::Control),
            (json!({"rescue_password": long}), PasswordError::Long),
        ] {
            assert_eq!(told(params), Err(error));
        }
    }
}
