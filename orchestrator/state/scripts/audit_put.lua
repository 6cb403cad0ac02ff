-- include: audit.lua
-- Write an entry of an audit log, unless a change has carried it there already.
-- KEYS: entries, index [, journal]
-- ARGV: the entry as audit.lua wants it, the rest of its text, 'again' to write it in the place of the one that is there
-- Answers 1, or 0 when it is there.
return audit_keep(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3] == 'again')
