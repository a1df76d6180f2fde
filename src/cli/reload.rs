//! `pulsegate reload`: has the running gateway read its file again, and says what that changed.
use super::{
    AdminArguments, Exit,
    client::Client,
    output::{complain, say},
};
use serde_json::json;

pub(crate) fn reload(arguments: &AdminArguments) -> Exit {
    let client = match Client::find(arguments) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    match client.post("/api/v1/reload", &json!({})) {
        Ok(done) => {
            say(format_args!("reloaded: {}", done["summary"].as_str().unwrap_or_default()));
            Exit::Done
        }
        Err(error) => {
            complain(&error);
            error.exit()
        }
    }
}
