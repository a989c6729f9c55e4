//! Users who log in, log out, and come again at once.

use std::time::Duration;

use crate::bench::Failure;
use crate::bench::crowd::What;
use crate::bench::load::Load;
use crate::bench::report::Report;

/// As many users at a time as there are pairs. The latency is from the connect to the accepted login; the cost is that of connection, login and
/// logout together.
pub fn churn(load: &mut Load<'_, '_>) -> Result<Report, Failure> {
    let users = load.settings.pairs;
    let mut asked_at = vec![Duration::ZERO; users as usize];
    for user in 0..users {
        asked_at[user as usize] = load.crowd.now();
        load.crowd.join(user)?;
    }
    let mut happened = Vec::new();
    let measured = load.measure(load.settings.time, true, |load, _| {
        happened.clear();
        happened.extend_from_slice(load.happened());
        for happening in &happened {
            let user = happening.client;
            match happening.what {
                What::LoggedIn => {
                    load.enter(happening.at - asked_at[user as usize], happening.at);
                    load.crowd.log_out(user);
                    load.crowd.flush();
                    load.crowd.finish(user);
                }
                What::Closed => {
                    asked_at[user as usize] = load.crowd.now();
                    load.crowd.come_back(user)?;
                }
                What::Text { .. } | What::Strange => {}
            }
        }
        Ok(Duration::MAX)
    })?;
    Ok(load.report("logins", measured))
}
