//! What an unknown key or name probably meant.
use super::{
    keys::{PLACES, Place},
    problem::Wrong,
    value::quoted,
};

/// Names from other programs, in lower case and without separators, with ours.
const FOREIGN: &[(&str, &str)] = &[
    ("metrics", "write address in [admin]: metrics are served there"),
    ("stats", "write address in [admin]"),
    (
        "healthcheck",
        "write health in a [[listener]], where balancers ask the gateway, or check = { kind = \"http\" } in [upstream.NAME], \
         by which it asks backends",
    ),
    ("token", "write token_file in [admin], the name of a file that holds the token"),
    ("clientclosed", "a client's own close frame crosses untouched"),
    ("upstreamclosed", "a backend's own close frame crosses untouched"),
    (
        "proxyreadtimeout",
        "a session is not cut for silence here: ping_interval keeps it alive, timeouts.idle bounds it",
    ),
    ("proxysendtimeout", "timeouts.stall bounds a receiver that does not take what waits for it"),
    ("proxyconnecttimeout", "write timeouts.connect"),
    ("proxytimeout", "write timeouts.idle"),
    ("proxypass", "write upstream = \"NAME\" in the [[route]] and servers = [\"ws://HOST:PORT\"] in [upstream.NAME]"),
    (
        "proxysetheader",
        "write headers.request.set; forwarded headers are set by themselves, host_header chooses the Host",
    ),
    ("addheader", "write headers.response.add"),
    ("proxyhideheader", "write headers.response.remove"),
    ("requestheader", "write headers.request.set"),
    ("setheader", "write headers.request.set or headers.response.set"),
    ("customrequestheaders", "write headers.request.set"),
    ("customresponseheaders", "write headers.response.set"),
    ("requestheaderstoadd", "write headers.request.add"),
    ("responseheaderstoadd", "write headers.response.add"),
    ("headerup", "write headers.request.set"),
    ("headerdown", "write headers.response.set"),
    ("proxybuffersize", "limits.header bounds heads; frames are never buffered whole"),
    ("largeclientheaderbuffers", "write limits.header"),
    ("clientheaderbuffersize", "write limits.header"),
    ("clientheadertimeout", "write timeouts.handshake"),
    ("clientmaxbodysize", "write limits.client.message for WebSocket; bodies of plain HTTP stream and have no limit"),
    ("servername", "write host in the [[route]]"),
    ("server", "write [[listener]], [[route]] and [upstream.NAME] with servers"),
    ("location", "write path in a [[route]]"),
    ("listen", "write address in a [[listener]]"),
    ("bind", "write address in a [[listener]]"),
    ("port", "write it in the address of a [[listener]]: \"0.0.0.0:8080\""),
    ("frontend", "write a [[listener]] and a [[route]]"),
    ("backend", "write [upstream.NAME] with servers"),
    ("backends", "write servers in [upstream.NAME]"),
    ("sslcertificate", "write tls = { certificate = \"…\", key = \"…\" } in the [[listener]]"),
    ("sslcertificatekey", "write tls = { certificate = \"…\", key = \"…\" } in the [[listener]]"),
    ("sslverifyclient", "write tls.clients = { ca = \"…\" } in the [[listener]]"),
    ("sslclientcertificate", "write tls.clients = { ca = \"…\" } in the [[listener]]"),
    ("sslcrl", "write crl in tls.clients of the [[listener]]"),
    ("cafile", "write tls.clients = { ca = \"…\" } in the [[listener]]"),
    ("crlfile", "write crl in tls.clients of the [[listener]]"),
    ("clientauth", "write tls.clients = { ca = \"…\" } in the [[listener]]"),
    ("sslprotocols", "write tls.min_version in the [[listener]]"),
    ("ssl", "write tls = { certificate = \"…\", key = \"…\" } in the [[listener]]"),
    ("cert", "write certificate"),
    ("keepalivetimeout", "write timeouts.keep_alive for plain HTTP; timeouts.idle bounds a session"),
    ("keepalive", "write heartbeat.client.ping_interval and heartbeat.upstream.ping_interval"),
    ("keepaliveinterval", "write ping_interval in heartbeat.client or heartbeat.upstream"),
    ("pinginterval", "write ping_interval in heartbeat.client or heartbeat.upstream"),
    ("pingtimeout", "write ping_timeout in heartbeat.client or heartbeat.upstream"),
    ("wspinginterval", "write ping_interval in heartbeat.client or heartbeat.upstream"),
    ("wspingtimeout", "write ping_timeout in heartbeat.client or heartbeat.upstream"),
    ("heartbeatinterval", "write ping_interval in heartbeat.client or heartbeat.upstream"),
    ("timeouttunnel", "write timeouts.idle; sessions are kept alive by ping_interval"),
    ("timeoutclient", "heartbeat.client finds dead clients, timeouts.idle bounds silent ones"),
    ("timeoutserver", "heartbeat.upstream finds dead backends, timeouts.idle bounds silent ones"),
    ("timeouthttpkeepalive", "write timeouts.keep_alive"),
    ("keepaliverequests", "a connection of plain HTTP may ask any number of requests, each within timeouts.keep_alive"),
    ("timeoutconnect", "write timeouts.connect"),
    ("timeouthttprequest", "write timeouts.handshake"),
    ("timeout", "write timeouts"),
    ("maxconn", "write max_sessions in [gateway]"),
    ("maxconnections", "write max_sessions in [gateway]"),
    ("maxclients", "write max_sessions in [gateway]"),
    ("workerconnections", "write max_sessions in [gateway]"),
    ("workerprocesses", "write workers in [gateway]"),
    ("workerthreads", "write workers in [gateway]"),
    ("nbthread", "write workers in [gateway]"),
    ("authbasic", "write access.basic.realm"),
    ("authbasicuserfile", "write access.basic.file"),
    ("basicauth", "write access.basic = { file = \"users\" }"),
    ("htpasswd", "write access.basic.file"),
    ("usersfile", "write access.basic.file"),
    ("authrequest", "write access.forward = { url = \"http://HOST:PORT/PATH\" }"),
    ("forwardauth", "write access.forward = { url = \"http://HOST:PORT/PATH\" }"),
    ("extauthz", "write access.forward = { url = \"http://HOST:PORT/PATH\" }"),
    ("authresponseheaders", "write access.forward.copy_headers"),
    ("limitreq", "write rates.handshakes_per_address and rates.sessions_per_address in [gateway]"),
    ("limitreqzone", "write rates.handshakes_per_address and rates.sessions_per_address in [gateway]"),
    (
        "ratelimit",
        "write rates in [gateway] for handshakes and sessions, or messages_per_second and bytes_per_second in limits.client for \
         what a session sends",
    ),
    ("maxconnrate", "write rates.sessions in [gateway]"),
    ("sourcerange", "write access.allow"),
    ("ipallowlist", "write access.allow"),
    ("ipwhitelist", "write access.allow"),
    ("whitelist", "write access.allow"),
    ("blacklist", "write access.deny"),
    ("remoteip", "write access.allow"),
    ("limitconn", "write limits.sessions_per_address"),
    ("idletimeout", "write timeouts.idle"),
    ("streamidletimeout", "write timeouts.idle"),
    ("connecttimeout", "write timeouts.connect"),
    ("requesttimeout", "write timeouts.handshake"),
    ("maxstreamduration", "write timeouts.max_age"),
    ("maxconnectionduration", "write timeouts.max_age"),
    ("maxlifetime", "write timeouts.max_age"),
    ("draintimeout", "write drain.timeout in [gateway]"),
    ("gracefulshutdowntimeout", "write drain.timeout in [gateway]"),
    ("shutdowntimeout", "write drain.timeout in [gateway]"),
    ("setrealipfrom", "write trusted_proxies in [gateway]"),
    ("realipheader", "write client_address in [gateway]"),
    ("forwardedby", "write trusted_proxies in [gateway]"),
    ("acceptproxy", "write proxy_protocol = \"require\" in the [[listener]], and trusted_proxies in [gateway]"),
    ("sendproxy", "write proxy_protocol = \"v1\" in [upstream.NAME]"),
    ("sendproxyv2", "write proxy_protocol = \"v2\" in [upstream.NAME]"),
    ("proxyprotocoltimeout", "timeouts.handshake of [defaults] bounds the wait for a PROXY header"),
    ("trustedips", "write trusted_proxies in [gateway]"),
    ("xffnumtrustedhops", "write trusted_proxies in [gateway]"),
    ("maxmessagesize", "write limits.client.message or limits.upstream.message"),
    ("maxpayload", "write limits.client.message or limits.upstream.message"),
    ("maxframesize", "write limits.client.frame or limits.upstream.frame"),
    ("maxsize", "write limits.client.message or limits.upstream.message"),
    ("limitrate", "write limits.upstream.bytes_per_second, or limits.client.bytes_per_second for what clients send"),
    ("proxylimitrate", "write limits.upstream.bytes_per_second"),
    ("messagerate", "write limits.client.messages_per_second"),
    ("maxfragments", "write limits.client.fragments"),
    ("loglevel", "write level in [log]"),
    ("errorlog", "write level in [log]"),
    ("accesslog", "write path in [access_log]"),
    ("logformat", "write format in [access_log]"),
    ("reopen", "SIGUSR1 opens the access log anew"),
    ("allowedorigins", "write origins in the [[route]]"),
    ("origin", "write origins = [\"https://…\"] in the [[route]]"),
    ("prefix", "write path in the [[route]]"),
    ("stripprefix", "write strip_prefix in the [[route]]"),
    ("lbpolicy", "write balance in [upstream.NAME]"),
    ("iphash", "write balance = \"hash\" and hash = \"address\" in [upstream.NAME]"),
    ("hashkey", "write balance = \"hash\" and hash = \"query:NAME\" in [upstream.NAME]"),
    ("stickycookie", "write sticky = { cookie = \"NAME\" } in [upstream.NAME]"),
    ("slowstart", "write slow_start in [upstream.NAME]"),
    ("httpchk", "write check = { kind = \"http\" } in [upstream.NAME]"),
    ("inter", "write interval in check of [upstream.NAME]"),
    ("maxconns", "write servers = [{ url = \"…\", max_sessions = 100 }] in [upstream.NAME]"),
    ("leastconn", "write balance = \"least_sessions\" in [upstream.NAME]"),
    ("proxybind", "write source = [\"IP\"] in [upstream.NAME]"),
    ("bindaddress", "write source = [\"IP\"] in [upstream.NAME]"),
    ("proxynextupstreamtries", "each backend is tried once; retry_budget in [upstream.NAME] bounds further tries"),
    ("retries", "each backend is tried once; retry_budget in [upstream.NAME] bounds further tries"),
    ("numretries", "each backend is tried once; retry_budget in [upstream.NAME] bounds further tries"),
    ("resolvers", "write resolver = \"IP:PORT\" in [upstream.NAME]"),
    ("nameserver", "write resolver = \"IP:PORT\" in [upstream.NAME]"),
    ("servertemplate", "write the name in servers of [upstream.NAME]: all its addresses are backends"),
    ("maxpendingrequests", "write max_dials in [upstream.NAME]"),
    ("maxqueue", "dials wait for a place of max_dials up to timeouts.connect"),
    ("proxysslcertificate", "write tls = { certificate = \"…\", key = \"…\" } in [upstream.NAME]"),
    ("proxysslcertificatekey", "write tls = { certificate = \"…\", key = \"…\" } in [upstream.NAME]"),
    ("proxyssltrustedcertificate", "write tls = { ca = \"…\" } in [upstream.NAME]"),
    ("proxysslname", "write tls = { server_name = \"…\" } in [upstream.NAME]"),
    ("sni", "write tls = { server_name = \"…\" } in [upstream.NAME]"),
    ("proxysslverify", "backends are always verified; name their authority: tls = { ca = \"…\" }"),
    ("insecureskipverify", "backends are always verified; name their authority: tls = { ca = \"…\" }"),
    ("maxfails", "a backend that fails once is left alone for fail_timeout"),
];

/// Keys of ours that mean something else, and more often, in other programs.
const MEANT_OTHERWISE: [&str; 1] = ["server_name"];

/// Ours for a name from another program.
pub(super) fn foreign(key: &str) -> Option<&'static str> {
    let plain: String = key.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>().to_lowercase();
    FOREIGN.iter().find(|(name, _)| *name == plain).map(|(_, ours)| *ours)
}

/// What to say of a key that a table does not have.
pub(super) fn unknown(place: &Place, key: &str) -> Wrong {
    let help = meant(place, key).unwrap_or_else(|| format!("known here: {}", place.keys.join(", ")));
    Wrong::new(format!("{} has no such key", place.title), help)
}

/// Whether what is said of an unknown key tells to write `wanted`.
pub(super) fn names(place: &Place, key: &str, wanted: &str) -> bool {
    let word = |letter: char| letter.is_alphanumeric() || letter == '_';
    meant(place, key).is_some_and(|help| help.split(|letter| !word(letter)).any(|one| one == wanted))
}

fn meant(place: &Place, key: &str) -> Option<String> {
    let separators = ["-", " "].iter().fold(key.to_lowercase(), |key, separator| key.replace(separator, "_"));
    if place.keys.contains(&separators.as_str()) {
        return Some(format!("write {separators}"));
    }
    let near = nearest(key, place.keys.iter().copied());
    if let Some(near) = near.filter(|near| distance(key, near) == 1) {
        return Some(format!("did you mean {near}?"));
    }
    let homes: Vec<&str> =
        PLACES.iter().filter(|other| other.keys.contains(&key)).map(|other| other.title).take(2).collect();
    if !homes.is_empty() && !MEANT_OTHERWISE.contains(&key) {
        return Some(format!("{key} belongs in {}", homes.join(" or in ")));
    }
    if let Some(near) = near {
        return Some(format!("did you mean {near}?"));
    }
    if let Some(ours) = foreign(key) {
        return Some(ours.to_owned());
    }
    let everywhere = PLACES.iter().flat_map(|place| place.keys.iter().copied());
    let near = nearest(key, everywhere)?;
    let home = PLACES.iter().find(|other| other.keys.contains(&near)).map_or("", |other| other.title);
    Some(format!("did you mean {near}, which belongs in {home}?"))
}

/// The candidate that differs least from `word`, if it is likely to be meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let length = word.chars().count();
    if length > LONGEST {
        return None;
    }
    let allowed = (length / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance where swapping two neighbours is one edit (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut this = vec![row];
        for column in 1..=right.len() {
            let replaced = last[column - 1] + usize::from(left[row - 1] != right[column - 1]);
            let mut least = replaced.min(last[column] + 1).min(this[column - 1] + 1);
            let swapped =
                row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1];
            if swapped {
                least = least.min(before[column - 2] + 1);
            }
            this.push(least);
        }
        before = std::mem::replace(&mut last, this);
    }
    last[right.len()]
}

/// The name that is probably meant, or the names there are, for a reference to something that does not exist.
pub(super) fn existing(word: &str, names: &[&str]) -> Option<String> {
    if let Some(near) = nearest(word, names.iter().copied()) {
        return Some(format!("did you mean {}?", quoted(near)));
    }
    (!names.is_empty()).then(|| {
        let shown: Vec<String> = names.iter().take(10).map(|name| quoted(name)).collect();
        format!("there is {}", super::value::or_list(&shown).replace(" or ", " and "))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::keys::*, *};

    #[test]
    fn names_of_other_programs_lead_to_ours() {
        let names = [
            (&ROUTE, "proxy_read_timeout", "timeouts.idle"),
            (&ROUTE, "proxy_send_timeout", "timeouts.stall"),
            (&ROUTE, "proxy_connect_timeout", "timeouts.connect"),
            (&ROUTE, "proxy_pass", "upstream = "),
            (&ROUTE, "server_name", "host"),
            (&LISTENER, "listen", "address"),
            (&LISTENER, "bind", "address"),
            (&DEFAULTS, "timeout tunnel", "timeouts.idle"),
            (&DEFAULTS, "timeout client", "heartbeat.client"),
            (&GATEWAY, "maxconn", "max_sessions"),
            (&GATEWAY, "max_connections", "max_sessions"),
            (&DEFAULTS, "idle_timeout", "timeouts.idle"),
            (&DEFAULTS, "streamIdleTimeout", "timeouts.idle"),
            (&DEFAULTS, "keepalive", "ping_interval"),
            (&DEFAULTS, "keepalive_timeout", "timeouts.idle"),
            (&ROOT, "metrics", "[admin]"),
            (&LISTENER, "healthcheck", "health in a [[listener]]"),
            (&UPSTREAM, "healthCheck", "check = {"),
            (&GATEWAY, "rateLimit", "rates"),
            (&ROUTE, "rate_limit", "messages_per_second"),
            (&ROUTE, "auth_request", "access.forward"),
            (&ROUTE, "auth_basic_user_file", "access.basic.file"),
            (&GATEWAY, "limit_req", "rates"),
            (&ROOT, "frontend", "[[listener]]"),
        ];
        for (place, name, ours) in names {
            let help = unknown(place, name).help;
            assert!(help.contains(ours), "{name}: {help}");
        }
    }

    #[test]
    fn each_foreign_name_stands_once() {
        let mut names: Vec<&str> = FOREIGN.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn slips_lead_to_the_nearest_key() {
        let slips = [
            (&HEARTBEAT_SIDE, "ping_intervall", "did you mean ping_interval?"),
            (&HEARTBEAT_SIDE, "pnig_timeout", "did you mean ping_timeout?"),
            (&DEFAULTS, "timeout", "did you mean timeouts?"),
            (&UPSTREAM, "server", "did you mean servers?"),
            (&ROUTE, "Strip Prefix", "write strip_prefix"),
            (&DEFAULTS, "ping_interval", "ping_interval belongs in heartbeat.client or heartbeat.upstream"),
            (&ROUTE, "tls", "tls belongs in [[listener]] or in [upstream.NAME]"),
            (&LOG, "orgins", "did you mean origins, which belongs in [[route]]?"),
            (&LOG, "zzzzzz", "known here: level, format, sessions"),
        ];
        for (place, slip, help) in slips {
            assert_eq!(unknown(place, slip).help, help);
        }
    }

    #[test]
    fn swapped_neighbours_are_one_edit() {
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
