//! Configuration: raw file, merged with the command line, to settings that are valid by construction.

mod settings;

pub use settings::{
    Abandoned, Age, ClientTls, Credentials, Log, LogFormat, Prefetch, Proxy, RegistryDefaults,
    RegistrySettings, Secret, Settings,
};
