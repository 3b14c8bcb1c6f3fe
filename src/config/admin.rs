//! `[admin]`: commands over the network.

use super::address::{Listen, TCP};
use super::keys::Keys;
use super::secret::{self, Given};
use super::settings::AdminSettings;

/// Characters that a token has at least: who guesses shall not get far.
const SHORTEST: usize = 16;

/// None when nobody is listened to there. `taken` is where something else listens.
pub fn read(keys: &mut Keys, taken: &[(Listen, &str)]) -> Option<Option<AdminSettings>> {
    keys.table("admin", |keys| {
        let listen = keys.read("listen", "", &TCP);
        let token = secret::read(keys, "token");
        let given = ["token_credential", "token_from_env", "token_file", "token"];
        let key = given.into_iter().find(|key| keys.is_given(key)).unwrap_or("token_file");
        match (listen?, token?) {
            (None, None) => Some(None),
            (None, Some(_)) => refuse(keys, key, "has no meaning without listen"),
            (Some(_), None) => refuse(
                keys,
                "listen",
                "has no token, want one of token, token_file, token_from_env, token_credential: commands come over \
                 the network only with it",
            ),
            (Some(_), Some(Given::Here(token))) if token.reveal().len() < SHORTEST => {
                refuse(keys, key, &format!("the secret is too short, want at least {SHORTEST} characters"))
            }
            (Some(_), Some(Given::Here(token))) if !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) => {
                refuse(keys, key, "the secret has a space or something beyond ASCII in it, which no header can hold")
            }
            (Some(listen), Some(token)) => {
                let is_there = |(other, _): &&(Listen, &str)| *other == Listen::Tcp(listen);
                match taken.iter().find(is_there) {
                    None => Some(match token {
                        Given::Here(token) => Some(AdminSettings { listen, token }),
                        // Who reads this takes no commands.
                        Given::Withheld => None,
                    }),
                    Some((_, what)) => {
                        refuse(keys, "listen", &format!("{listen} is where {what}: give it a port of its own"))
                    }
                }
            }
        }
    })
}

fn refuse<T>(keys: &mut Keys, key: &str, what: &str) -> Option<T> {
    keys.refuse(key, what);
    None
}
