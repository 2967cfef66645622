//! Reasons for which a session keeps its server connection.

use bitflags::bitflags;

use crate::intent::Effects;

bitflags! {
    /// State that only the one server connection holds on which it was made.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Pins: u32 {
        const TRANSACTION = 1 << 0;
        const TEMPORARY_TABLE = 1 << 1;
        const LOCK_TABLES = 1 << 2;
        const GLOBAL_READ_LOCK = 1 << 3;
        const USER_LOCK = 1 << 4;
        const HANDLER = 1 << 5;
        const TEXT_PREPARE = 1 << 6;
        /// A setting that cannot be made again elsewhere, or more of them than are remembered.
        const UNTRACKED_SET = 1 << 7;
        /// A user variable whose value is not known.
        const USER_VARIABLE = 1 << 8;
        /// Ends with the next statement.
        const FOUND_ROWS = 1 << 9;
        /// Warnings or an error that may be asked for. Ends with the next statement.
        const WARNINGS = 1 << 10;
        const INSERT_ID = 1 << 11;
        /// Something ran whose text does not tell what it left behind: CALL, EXECUTE.
        const UNKNOWN_STATE = 1 << 12;
        const CURSOR = 1 << 13;
        /// COM_STMT_SEND_LONG_DATA was sent and not yet used.
        const LONG_DATA = 1 << 14;
        /// SET TRANSACTION for the next transaction, SET insert_id, SET timestamp.
        const ONE_SHOT = 1 << 15;
        /// COM_SET_OPTION made it differ from what the login asked for.
        const MULTI_STATEMENTS_OPTION = 1 << 16;
    }
}

impl Pins {
    /// What ends with the session's next statement and is no state that another session could run into.
    pub const FLEETING: Self = Self::FOUND_ROWS.union(Self::WARNINGS);

    /// How many there are.
    pub const KINDS: usize = NAMES.len();

    /// The places of the pins that are set, each below [`Self::KINDS`].
    pub fn places(self) -> impl Iterator<Item = usize> {
        let set = NAMES.iter().enumerate().filter(move |(_, (pin, _))| self.contains(*pin));
        set.map(|(place, _)| place)
    }

    /// The name of each pin, by its place.
    pub fn all_names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }

    /// Names of the pins that are set, as metrics labels and for people.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(Self::name)
    }

    /// The name of one pin; of several, the name of the lowest.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(pin, _)| self.contains(*pin)).map_or("", |(_, name)| name)
    }

    /// What a statement with these effects may leave on the connection it ran on.
    pub fn of(effects: Effects) -> Self {
        let mut pins = Self::empty();
        for (effect, pin) in LEFT_BEHIND {
            pins.set(pin, effects.contains(effect) || pins.contains(pin));
        }
        pins
    }

    /// What is no longer there after a statement with these effects.
    pub(super) fn ended_by(effects: Effects) -> Self {
        let ended = ENDED.iter().filter(|(effect, _)| effects.contains(*effect));
        ended.fold(Self::empty(), |all, (_, pins)| all | *pins)
    }
}

/// Which effects end which pins.
const ENDED: [(Effects, Pins); 3] = [
    (Effects::UNLOCK_TABLES, Pins::LOCK_TABLES.union(Pins::GLOBAL_READ_LOCK)),
    (Effects::GLOBAL_READ_UNLOCK, Pins::GLOBAL_READ_LOCK),
    (Effects::USER_LOCKS_RELEASED, Pins::USER_LOCK),
];

/// Which effects leave which pins.
const LEFT_BEHIND: [(Effects, Pins); 11] = [
    (Effects::TEMPORARY_TABLE, Pins::TEMPORARY_TABLE),
    (Effects::LOCK_TABLES, Pins::LOCK_TABLES),
    (Effects::GLOBAL_READ_LOCK, Pins::GLOBAL_READ_LOCK),
    (Effects::USER_LOCK, Pins::USER_LOCK),
    (Effects::HANDLER_OPEN, Pins::HANDLER),
    (Effects::TEXT_PREPARE, Pins::TEXT_PREPARE),
    (Effects::UNTRACKED_SET, Pins::UNTRACKED_SET),
    (Effects::UNTRACKED_USER_VARIABLE, Pins::USER_VARIABLE),
    (Effects::CALC_FOUND_ROWS, Pins::FOUND_ROWS),
    (Effects::UNKNOWN_STATE, Pins::UNKNOWN_STATE),
    (Effects::ONE_SHOT, Pins::ONE_SHOT),
];

const NAMES: [(Pins, &str); 17] = [
    (Pins::TRANSACTION, "transaction"),
    (Pins::TEMPORARY_TABLE, "temporary-table"),
    (Pins::LOCK_TABLES, "lock-tables"),
    (Pins::GLOBAL_READ_LOCK, "global-read-lock"),
    (Pins::USER_LOCK, "user-lock"),
    (Pins::HANDLER, "handler"),
    (Pins::TEXT_PREPARE, "text-prepare"),
    (Pins::UNTRACKED_SET, "untracked-set"),
    (Pins::USER_VARIABLE, "user-variable"),
    (Pins::FOUND_ROWS, "found-rows"),
    (Pins::WARNINGS, "warnings"),
    (Pins::INSERT_ID, "insert-id"),
    (Pins::UNKNOWN_STATE, "unknown-state"),
    (Pins::CURSOR, "cursor"),
    (Pins::LONG_DATA, "long-data"),
    (Pins::ONE_SHOT, "one-shot"),
    (Pins::MULTI_STATEMENTS_OPTION, "multi-statements-option"),
];
