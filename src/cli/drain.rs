//! `pulsegate drain`: takes a gateway, or one of its backends, out of service.
use super::{
    DrainArguments, Exit,
    client::{AskError, Client},
    output::{complain, say},
    sessions::watch,
};
use serde_json::{Value, json};
use std::{thread::sleep, time::Duration};

/// How often the gateway is asked how its drain goes.
const WATCH: Duration = Duration::from_millis(500);

pub(crate) fn drain(arguments: &DrainArguments) -> Exit {
    let client = match Client::find(&arguments.admin) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let done = match &arguments.backend {
        Some(backend) => of_backend(&client, backend, arguments),
        None => of_gateway(&client, arguments),
    };
    done.unwrap_or_else(|error| {
        complain(&error);
        error.exit()
    })
}

fn of_backend(client: &Client, backend: &str, arguments: &DrainArguments) -> Result<Exit, AskError> {
    let upstream = &arguments.upstream;
    if arguments.restore {
        let states = client.post("/api/v1/backends/restore", &json!({ "upstream": upstream, "backend": backend }))?;
        tell(&states);
        return Ok(Exit::Done);
    }
    let mut ask = json!({ "upstream": upstream, "backend": backend, "evacuate": arguments.evacuate });
    if arguments.evacuate {
        ask["rate"] = json!(arguments.rate);
        let begun = client.post("/api/v1/backends/drain", &ask)?;
        return watch(client, &begun);
    }
    tell(&client.post("/api/v1/backends/drain", &ask)?);
    Ok(Exit::Done)
}

fn tell(states: &Value) {
    for state in states["backends"].as_array().into_iter().flatten() {
        let word = |key: &str| state[key].as_str().unwrap_or_default().to_owned();
        say(format_args!(
            "{} of {}: {}, {} sessions",
            word("backend"),
            word("upstream"),
            word("state"),
            state["sessions"]
        ));
    }
}

fn of_gateway(client: &Client, arguments: &DrainArguments) -> Result<Exit, AskError> {
    let mut state = client.post("/api/v1/drain", &json!({ "cause": if arguments.shed { "shed" } else { "stop" } }))?;
    let mut last = None;
    loop {
        let left = state["sessions"].as_u64();
        if last != left {
            say(format_args!(
                "{}, {} sessions left",
                state["phase"].as_str().unwrap_or_default(),
                left.unwrap_or_default()
            ));
            last = left;
        }
        if !arguments.wait {
            return Ok(Exit::Done);
        }
        sleep(WATCH);
        state = match client.get("/api/v1/drain") {
            Ok(state) => state,
            // It ended, and its admin listener with it.
            Err(AskError::Unreachable(..) | AskError::Garbled(_)) => {
                say("the gateway has ended");
                return Ok(Exit::Done);
            }
            Err(error @ (AskError::Late | AskError::Refused(..))) => return Err(error),
        };
    }
}
