//! Layer 3: the verbs, a file each. [`request::Request`] is what can be asked for, [`answer::Answer`] what comes back;
//! both are plain data, so that a call travels over D-Bus and in-process alike.

pub mod answer;
pub mod crypt;
pub mod request;
