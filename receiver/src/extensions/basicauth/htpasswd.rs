//! Users and passwords as Apache's `htpasswd` writes them, in the forms that the Collector's library knows.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};
use sha_crypt::{Sha256Params, Sha512Params, sha256_crypt_b64, sha512_crypt_b64};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

/// A password may have as many bytes: the slower forms take a time that grows with them.
const MOST: usize = 1024;
/// The rounds of SHA-crypt where nothing else is said.
const ROUNDS: usize = 5000;

/// The users, with what stands for their passwords.
#[derive(Default)]
pub(super) struct Users(HashMap<String, String>);

impl Users {
    /// Takes in lines of `user:password`. Later ones win. Returns the numbers of those that are neither that
    /// nor empty.
    pub(super) fn read(&mut self, text: &str) -> Vec<usize> {
        let mut wrong = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            match line.split_once(':') {
                Some((user, password)) if known(password) => {
                    self.0.insert(user.to_owned(), password.to_owned());
                }
                None if line.is_empty() => {}
                _ => wrong.push(number),
            }
        }
        wrong
    }

    /// Whether the user has this password. It may take some 100 ms.
    pub(super) fn know(&self, user: &str, password: &str) -> bool {
        password.len() <= MOST && self.0.get(user).is_some_and(|known| fits(known, password))
    }
}

fn known(stored: &str) -> bool {
    match stored.get(..4) {
        Some("$2a$" | "$2b$" | "$2x$" | "$2y$") => stored.len() == 60,
        _ => true,
    }
}

/// Whether a password is the one that is stored.
fn fits(stored: &str, password: &str) -> bool {
    let same = |computed: &[u8], stored: &[u8]| computed.ct_eq(stored).into();
    let bytes = password.as_bytes();
    if let Some(hash) = stored.strip_prefix("{SHA}") {
        return same(STANDARD.encode(Sha1::digest(bytes)).as_bytes(), hash.as_bytes());
    }
    if let Some(hash) = stored.strip_prefix("{SSHA}") {
        let Ok(decoded) = STANDARD.decode(hash) else { return false };
        let Some((hash, salt)) = decoded.split_at_checked(20) else { return false };
        return same(&Sha1::new().chain_update(bytes).chain_update(salt).finalize(), hash);
    }
    let Some((form, rest)) = stored.strip_prefix('$').and_then(|rest| rest.split_once('$')) else {
        return same(bytes, stored.as_bytes());
    };
    match form {
        // It compares in constant time itself.
        "2a" | "2b" | "2x" | "2y" => bcrypt::verify(bytes, stored).unwrap_or(false),
        "1" | "apr1" => rest.split_once('$').is_some_and(|(salt, hash)| {
            let salt: String = salt.chars().take(8).collect();
            same(md5_crypt(bytes, form, salt.as_bytes()).as_bytes(), hash.as_bytes())
        }),
        "5" | "6" => sha_crypt(bytes, form, rest)
            .is_some_and(|(computed, hash)| same(computed.as_bytes(), hash.as_bytes())),
        _ => same(bytes, stored.as_bytes()),
    }
}

/// `[rounds=N$]salt$hash`: what the hash should be, and what it is.
fn sha_crypt<'a>(password: &[u8], form: &str, rest: &'a str) -> Option<(String, &'a str)> {
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        Some(rest) => {
            let (rounds, rest) = rest.split_once('$')?;
            (rounds.parse().ok()?, rest)
        }
        None => (ROUNDS, rest),
    };
    let (salt, hash) = rest.split_once('$')?;
    let salt: String = salt.chars().take(16).collect();
    let salt = salt.as_bytes();
    let computed = match form {
        "5" => sha256_crypt_b64(password, salt, &Sha256Params::new(rounds).ok()?).ok()?,
        _ => sha512_crypt_b64(password, salt, &Sha512Params::new(rounds).ok()?).ok()?,
    };
    Some((computed, hash))
}

/// Poul-Henning Kamp's MD5-crypt, `$1$`, and Apache's, which differs in its name alone.
fn md5_crypt(password: &[u8], form: &str, salt: &[u8]) -> String {
    let twice =
        Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut context = Md5::new();
    context.update(password);
    context.update(format!("${form}$"));
    context.update(salt);
    let mut left = password.len();
    while left > 0 {
        context.update(&twice[..left.min(16)]);
        left -= left.min(16);
    }
    let mut bits = password.len();
    while bits > 0 {
        // The original's mistake, which made it into every file.
        context.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    let mut hash = context.finalize();
    for round in 0..1000 {
        let (first, last) =
            if round & 1 == 1 { (password, &hash[..]) } else { (&hash[..], password) };
        let mut context = Md5::new();
        context.update(first);
        if round % 3 != 0 {
            context.update(salt);
        }
        if round % 7 != 0 {
            context.update(password);
        }
        context.update(last);
        hash = context.finalize();
    }
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::new();
    let mut put = |bytes: [u8; 3], letters: u32| {
        let number = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for i in 0..letters {
            text.push(char::from(LETTERS[(number >> (6 * i)) as usize & 63]));
        }
    };
    for i in 0..5 {
        put([hash[i], hash[i + 6], hash[if i == 4 { 5 } else { i + 12 }]], 4);
    }
    put([0, 0, hash[11]], 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl passwd`, `htpasswd` and the tests of the Collector's library.
    #[test]
    fn every_form_is_known() {
        let mut users = Users::default();
        let wrong = users.read(
            "apr1:$apr1$gxNb79DX$6wi9QaGNM5TA0kBKiC4710\n\
             \n\
             long:$apr1$CBG7TUqG$Olyygy0L6HfSPfkLg24U60\r\n\
             md5:$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1\n\
             sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n\
             ssha:{SSHA}F3tJ8vk8rDhGy6QRPrvpPoxIffIwMTIzNDU2Nw==\n\
             bcrypt:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n\
             sha256:$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA\n\
             sha512:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n\
             plain:se:cret\n\
             dollars:a$1$b$c\n\
             again:first\n\
             again:second\n\
             no colon\n\
             cut:$2y$05$CCCCCCCCCCCCCCCCCCCCC\n",
        );
        assert_eq!(wrong, [14, 15]);
        for (user, password) in [
            ("apr1", "mickey5"),
            ("long", "65432106543210"),
            ("md5", "secret"),
            ("sha", "secret"),
            ("ssha", "secret"),
            ("bcrypt", "U*U"),
            ("sha256", "secret"),
            ("sha512", "secret"),
            ("plain", "se:cret"),
            ("dollars", "a$1$b$c"),
            ("again", "second"),
        ] {
            assert!(users.know(user, password), "{user}");
            for wrong in ["", "x", &password[1..], &format!("{password}x"), &"x".repeat(2000)] {
                assert!(!users.know(user, wrong), "{user}: {wrong}");
            }
        }
        assert!(!users.know("cut", "U*U") && !users.know("nobody", "") && !users.know("", ""));
    }

    #[test]
    fn what_is_cut_off_fits_nothing() {
        for stored in [
            "$apr1$",
            "$apr1$x",
            "$5$x",
            "$6$rounds=x$y$z",
            "{SSHA}",
            "{SSHA}????",
            "$2y$",
            "{SHA}",
        ] {
            assert!(!fits(stored, "x"), "{stored}");
        }
    }

    /// By `openssl passwd -apr1 -salt saltsalt`.
    #[test]
    fn passwords_of_every_length_are_mixed_in_right() {
        let text = b"0123456789abcdef0123456789ABCDEF01234567";
        for (length, hash) in [
            (0, "a8ml/vK5HEjiZ5oypDWA7/"),
            (1, "fRNhA5wUvRXUyI4xEXw/S/"),
            (15, "lQuiqJw2awxvdFLdcD2Jg."),
            (16, "noZiBycUL1t9WTQEO7/nr1"),
            (17, "P1pmVujRVrzjQyn1aY1oX1"),
            (40, "PnDir83mwWnios6quQUzF/"),
        ] {
            assert_eq!(md5_crypt(&text[..length], "apr1", b"saltsalt"), hash, "{length}");
        }
    }
}
