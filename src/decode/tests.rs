use super::*;
use crate::protocol::{Chat, Message, PUBLISHED_KEY};

fn cipher() -> Arc<Cipher> {
    Arc::new(Cipher::new(PUBLISHED_KEY).unwrap())
}
