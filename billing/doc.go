// Package billing keeps the books: keys, budgets, holds and charges. It does
// not know HTTP, Envoy, rate windows or what an answer looks like.
//
// # Words
//
// A key identifies a client; only the digest of its secret is stored. A budget
// is a number of tokens per UTC day or calendar month: daily, monthly, and the
// tariff, which is a month's too. A hold reserves the worst case of one
// request. It ends once: by a charge, which is what the request cost, or void.
// A charge is never changed; a correction is another row that refers to it. An
// account is a key's figures of one day: used is the sum of its charges, held
// the sum of its open holds. A month is the sum of its days. A request belongs
// to the day of its admission, whenever it ends.
//
// # Promises
//
//   - used + held <= limit for every budget at every instant, in memory and in
//     the database. What an upstream produced beyond its hold is posted as it
//     is and recorded as overshoot.
//   - Reserve returns after the hold is committed, Settle after the charge is
//     committed or fsynced to the spill file. Killing the process loses neither.
//   - A hold ends exactly once; doing it again is harmless.
//   - used = sum of charges and held = sum of open holds, per key and day, in
//     every committed state. Audit proves it.
//   - A hold whose process died is ended at the next Open of its data directory
//     or, with PostgreSQL, by any other gateway when its lease has run out:
//     nothing is charged for one that was never forwarded, what was seen for
//     one that was. A gateway that was only taken for dead adds the difference.
//   - Periods never go back, whatever the clock does.
//   - Lookup touches no database; with SQLite the decision of Reserve does not
//     either.
//   - Memory is bounded by the keys, the open holds and one queue.
//
// # How
//
// One goroutine, the writer, commits what is queued as one transaction, without
// waiting for more, and answers, retries or spills. Behind it stands one of two
// engines.
//
// SQLite, for one gateway: Reserve decides in memory under one lock, then queues
// the hold and waits. The writer owns the only connection that writes. Ending a
// hold frees its tokens in memory at once: whoever takes them is queued behind,
// so the database too never sees them twice. An operator's commands (Admin)
// write to the same database from another process; the gateway notices by
// SQLite's data_version and reads the keys that changed.
//
// PostgreSQL, for any number of gateways: the database decides. A transaction
// first locks the rows of its keys, in one order for everybody, and only then
// reads the accounts and the clock; what it grants is written in a second
// message that ends with the commit. Accounts change under their key's lock
// only, and by rows that were inserted or deleted in fact, so a transaction
// whose fate is unknown can be tried again: it waits for the lock that the first
// try may still have, and then moves nothing twice. What memory has of accounts
// is a copy to look at. A second goroutine, the keeper, keeps the lease, hears of
// changed keys (NOTIFY, and a poll for what was missed) and ends the holds of
// gateways that are gone. Days and months go by the database's clock. LISTEN and
// session settings need a connection of one's own: a pooler between must pool
// sessions, not transactions.
package billing
