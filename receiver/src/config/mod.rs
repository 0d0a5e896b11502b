//! YAML -> checked configuration: read the sources, merge, expand, check everything, and report every
//! mistake at once with its place. Nothing here starts anything.

mod any_case;
mod de;
mod expand;
mod http;
mod id;
mod instead;
mod merge;
mod mistake;
mod node;
mod plan;
mod planned;
mod print;
mod report;
mod resolve;
mod scalar;
pub mod schema;
mod secret;
mod section;
mod source;
mod style;
mod time;
mod write;
mod yaml;

pub use any_case::{any_case, any_case_option};
pub use de::optional;
pub use id::Id;
pub use mistake::{Mistake, Mistakes, Place};
pub use plan::{Kinds, Pipeline, Plan, load};
pub use planned::{Planned, Recipe};
pub use print::print;
pub use report::{Report, printable};
pub use secret::Secret;
pub use section::{Raw, Section};
pub use style::Style;
pub use time::{Signed, duration, parse as parse_duration, text as duration_text};
pub use write::yaml;

use plan::check;
