package billing

import (
	"strings"
	"testing"
)

// withoutMoney takes from a copy of the books what version 4 brought.
const withoutMoney = `DROP TABLE tariffs; DROP TABLE prices; DROP TABLE links; DROP TABLE changes;
	ALTER TABLE keys DROP COLUMN plan; ALTER TABLE keys DROP COLUMN money; ALTER TABLE keys DROP COLUMN blocked_at;
	ALTER TABLE accounts DROP COLUMN spent; ALTER TABLE accounts DROP COLUMN reserved;
	ALTER TABLE holds DROP COLUMN price; ALTER TABLE holds DROP COLUMN cost;
	ALTER TABLE charges DROP COLUMN cache_write; ALTER TABLE charges DROP COLUMN audio_prompt;
	ALTER TABLE charges DROP COLUMN audio_completion; ALTER TABLE charges DROP COLUMN price; ALTER TABLE charges DROP COLUMN cost;
	ALTER TABLE charges DROP COLUMN hold_cost;`

// A backup of books that had no index for a key's days yet is brought up to this
// program's schema, here and in PostgreSQL.
func TestBackupsOfAnOlderSchemaAreBroughtUp(t *testing.T) {
	pg := postgres15(t)
	for target, to := range map[string]home{"sqlite": {}, "postgresql": pg} {
		t.Run(target, func(t *testing.T) {
			o := home{}.options(t, nil)
			b, secret := worked(t, o)
			m, path := backup(t, o)
			shut(t, b)
			older := resealed(t, path, m, withoutMoney+"DROP INDEX charges_key_day; DELETE FROM goose_db_version WHERE version_id > 2")

			there := to.options(t, nil)
			done, err := Restore(t.Context(), there, older, RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !done.Audit.Balanced {
				t.Errorf("%+v", done.Audit)
			}
			restored := openBook(t, there)
			key := mustKey(t, restored, secret)
			now := restored.Now()
			if r := report(t, restored, key.ID, periodOf(now.AddDate(0, 0, -1)).day, periodOf(now).day); r.Total.Requests < 5 {
				t.Errorf("%+v", r)
			}
			plan := "EXPLAIN QUERY PLAN SELECT 1 FROM charges WHERE key_id = 'k' AND day >= '2026-11-24'"
			if target == "postgresql" {
				plan = "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() AND indexname = 'charges_key_day'"
			}
			var found []map[string]any
			if err := restored.store.read.Raw(plan).Scan(&found).Error; err != nil {
				t.Fatal(err)
			}
			used := false
			for _, row := range found {
				for _, cell := range row {
					text, _ := cell.(string)
					used = used || strings.Contains(text, "charges_key_day")
				}
			}
			if !used {
				t.Errorf("no index for a key's days: %v", found)
			}
			shut(t, restored)
			mustBalance(t, there)
		})
	}
}
