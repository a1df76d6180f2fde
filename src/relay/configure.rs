//! New settings for a relay that runs.

use super::{Relay, RelayConfig, Side};
use crate::protocol::moment::Moment;
use std::{sync::Arc, time::Instant};

impl Relay {
    /// The settings that it obeys.
    #[must_use]
    pub fn config(&self) -> &Arc<RelayConfig> {
        &self.config
    }

    /// From now on it obeys `config`, made by [`RelayConfig::renewed`] from what it has. Nothing ends by the change itself:
    /// who is over a new limit of time already has up to a tenth of it left, by chance, so that not all end at once. A
    /// session that ends keeps the settings with which it began to.
    pub fn configure(&mut self, config: Arc<RelayConfig>, now: Instant) {
        let now = self.clock.moment(now);
        if self.ending.is_some() || *config == *self.config {
            return;
        }
        let old = std::mem::replace(&mut self.config, config);
        for side in Side::BOTH {
            let leg = &mut self.legs[side];
            leg.heartbeat.configure(&old.heartbeat[side], &self.config.heartbeat[side], now);
            if (old.timeouts.stall, old.pace) != (self.config.timeouts.stall, self.config.pace) {
                leg.receiver.restart(now);
                leg.sender.restart(now);
            }
        }
        self.limit_age(&old, now);
        if (&old.limits, old.timeouts.idle) != (&self.config.limits, self.config.timeouts.idle) {
            self.limit_rates(now);
        }
        self.limit_idleness(&old, now);
    }

    fn limit_age(&mut self, old: &RelayConfig, now: Moment) {
        let age = self.config.timeouts.max_age;
        if age == old.timeouts.max_age {
            return;
        }
        let shortened = self.age_limit.zip(old.timeouts.max_age);
        let share = shortened.map_or_else(
            || 1.0 - self.tenth(),
            |(limit, age)| (limit - Moment::START).as_secs_f64() / age.as_secs_f64().max(f64::MIN_POSITIVE),
        );
        let grace = self.tenth();
        self.age_limit = age.map(|age| {
            let limit = Moment::START + age.mul_f64(share.clamp(0.0, 1.0));
            if limit > now { limit } else { now + age.mul_f64(grace) }
        });
    }

    fn limit_idleness(&mut self, old: &RelayConfig, now: Moment) {
        let Some(idle) = self.config.timeouts.idle.filter(|_| self.config.timeouts.idle != old.timeouts.idle) else {
            return;
        };
        let grace = idle.mul_f64(self.tenth());
        let Some(bounds) = &mut self.bounds else { return };
        if old.timeouts.idle.is_none() {
            // When data last passed may not have been kept.
            bounds.last_data = now;
        } else if bounds.last_data + idle <= now {
            bounds.last_data = now + grace - idle;
        }
    }

    /// Up to a tenth, by chance.
    fn tenth(&mut self) -> f64 {
        self.legs.downstream.heartbeat.random() / 10.0
    }
}
