//! Who may pull and what, and whether that is safe where we listen.

use super::address::NETWORK;
use super::keys::Keys;
use super::kind::{BOOL, FILE, NAME_PATTERN, UNLISTED};
use super::settings::{AccessSettings, ClientTls, Credentials, RegistrySettings, Settings};
use super::{Listen, Users};

/// Keys of the top level.
pub fn read(keys: &mut Keys) -> Option<AccessSettings> {
    let clients = keys.list("clients", &NETWORK);
    let users = users(keys);
    let open = keys.read("open", false, &BOOL);
    let allow = keys.list("allow", &NAME_PATTERN);
    let deny = keys.list("deny", &NAME_PATTERN);
    let unlisted = keys.read("unlisted", "public", &UNLISTED);
    Some(AccessSettings {
        clients: clients?,
        users: users?,
        open: open?,
        allow: allow?,
        deny: deny?,
        unlisted: unlisted?,
    })
}

fn users(keys: &mut Keys) -> Option<Option<Users>> {
    match keys.read("htpasswd", "", &FILE)?.map(|path| Users::read(&path)) {
        None => Some(None),
        Some(Ok(users)) => {
            keys.note_hidden("htpasswd", &users.lines());
            Some(Some(users))
        }
        Some(Err(what)) => {
            keys.refuse("htpasswd", &what);
            None
        }
    }
}

/// Refuses to be reached by others who could pull what our credentials can read, unless something says who may.
pub fn check_trust(keys: &mut Keys, settings: &Settings) {
    for listen in &settings.listen {
        if let Some(objection) = settings.objection(listen) {
            let key = if settings.listen.first() == Some(listen) { "host" } else { "listen" };
            keys.refuse(key, &objection);
            return;
        }
    }
}

impl Settings {
    /// Why it would not be safe to be reached at an address: whoever reaches us can pull what our credentials can
    /// read.
    pub fn objection(&self, listen: &Listen) -> Option<String> {
        if !listen.is_open_to_others() || self.says_who_may_pull() {
            return None;
        }
        let entry = self.registries.iter().find(|entry| entry.has_credentials())?;
        Some(format!(
            "{listen} can be reached by others, who could pull all that the credentials for `{}` can read: name those \
             who may with clients, htpasswd or server_tls.client_auth, listen on loopback addresses only, or say open = true",
            entry.name
        ))
    }

    /// Whether clients' passwords can be read on the wire to an address.
    pub fn passwords_in_the_clear(&self, listen: &Listen) -> bool {
        self.access.users.is_some() && self.server_tls.is_none() && listen.is_open_to_others()
    }

    fn says_who_may_pull(&self) -> bool {
        let AccessSettings { clients, users, open, .. } = &self.access;
        let certificates = self.server_tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        !clients.is_empty() || users.is_some() || certificates || *open
    }
}

impl RegistrySettings {
    fn has_credentials(&self) -> bool {
        let ClientTls { identity, .. } = &self.tls;
        self.credentials != Credentials::Anonymous || identity.is_some()
    }
}
