//! Words that decide something wherever they stand, and words that may stand before a parenthesis.

use crate::intent::Flavour;

/// Words that no pure read holds outside names, and why. All are reserved on both flavours, but for
/// sequences' words, which stay names on MySQL.
pub(super) fn forbidden(lower: &[u8]) -> Option<&'static str> {
    let why = match lower {
        b"for" => "may lock what it reads",
        b"lock" | b"unlock" => "locks",
        b"into" => "writes its result into a file or a variable",
        b"procedure" => "runs a procedure on its result",
        b"insert" | b"replace" | b"update" | b"delete" | b"load" => "writes",
        b"create" | b"alter" | b"drop" | b"rename" | b"grant" | b"revoke" => "changes definitions",
        b"call" => "calls a procedure",
        b"kill" | b"purge" => "administers",
        _ => return None,
    };
    Some(why)
}

/// Words that are never the name of a function that is called, wherever they stand before a parenthesis. Each was
/// tried against a stored function of the name on MariaDB 10.11 and MySQL 9.7.
pub(super) fn precedes_parenthesis(flavour: Flavour, lower: &[u8]) -> bool {
    match lower {
        b"select"
        | b"from"
        | b"where"
        | b"and"
        | b"or"
        | b"not"
        | b"in"
        | b"on"
        | b"using"
        | b"having"
        | b"by"
        | b"as"
        | b"exists"
        | b"all"
        | b"distinct"
        | b"distinctrow"
        | b"when"
        | b"then"
        | b"else"
        | b"case"
        | b"between"
        | b"like"
        | b"rlike"
        | b"regexp"
        | b"div"
        | b"mod"
        | b"xor"
        | b"join"
        | b"straight_join"
        | b"union"
        | b"except"
        | b"intersect"
        | b"key"
        | b"index"
        | b"partition"
        | b"match"
        | b"over"
        | b"group"
        | b"limit"
        | b"any"
        | b"some"
        | b"with"
        | b"sql_small_result"
        | b"sql_big_result"
        | b"high_priority"
        | b"sql_calc_found_rows"
        | b"end" => true,
        b"char" | b"varchar" | b"nchar" | b"varbinary" | b"decimal" | b"dec" | b"numeric" | b"fixed"
        | b"int" | b"integer" | b"bigint" | b"tinyint" | b"smallint" | b"mediumint" | b"float"
        | b"double" | b"real" | b"datetime" | b"bit" => true,
        b"lateral" | b"of" | b"against" | b"columns" | b"rollup" | b"cube" | b"escape" => {
            flavour == Flavour::Mysql
        }
        _ => false,
    }
}

/// Words that MariaDB takes for names of functions, unless they stand behind a literal or a parenthesis.
pub(super) fn follows_operand(lower: &[u8]) -> bool {
    matches!(lower, b"against" | b"columns" | b"escape")
}

/// Functions that are called without parentheses, and whose answer is not the same everywhere at all times.
pub(super) fn calls_by_itself(lower: &[u8]) -> bool {
    matches!(
        lower,
        b"current_date"
            | b"current_time"
            | b"current_timestamp"
            | b"current_user"
            | b"current_role"
            | b"localtime"
            | b"localtimestamp"
            | b"utc_date"
            | b"utc_time"
            | b"utc_timestamp"
            | b"session_user"
            | b"system_user"
            | b"user"
            | b"sysdate"
            | b"rownum"
    )
}

/// Tables of information_schema that describe data which is the same on every server.
pub(super) fn describes_data(lower: &[u8]) -> bool {
    matches!(
        lower,
        b"tables"
            | b"columns"
            | b"schemata"
            | b"views"
            | b"key_column_usage"
            | b"table_constraints"
            | b"referential_constraints"
            | b"check_constraints"
            | b"routines"
            | b"parameters"
            | b"triggers"
            | b"events"
            | b"character_sets"
            | b"collations"
            | b"collation_character_set_applicability"
            | b"geometry_columns"
            | b"spatial_ref_sys"
            | b"st_geometry_columns"
            | b"st_spatial_reference_systems"
            | b"st_units_of_measure"
            | b"view_table_usage"
            | b"view_routine_usage"
            | b"columns_extensions"
            | b"tables_extensions"
            | b"schemata_extensions"
            | b"table_constraints_extensions"
            | b"sequences"
            | b"periods"
            | b"key_period_usage"
    )
}
