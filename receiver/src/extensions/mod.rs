//! The extensions. A new one is a file, its `mod` line and its line in the list.

use crate::component::{AnyExtension, Factory, extension};

pub mod auth;
mod basicauth;
mod bearertokenauth;
mod health_check;
pub(crate) mod server;
#[cfg(test)]
mod testing;
mod zpages;

/// Every extension.
pub const EXTENSIONS: &[Factory<Box<dyn AnyExtension>>] = &[
    extension::<basicauth::BasicAuth>(),
    extension::<bearertokenauth::BearerTokenAuth>(),
    extension::<health_check::HealthCheck>(),
    extension::<zpages::ZPages>(),
];
