package billing

import (
	"context"
	"fmt"

	"gorm.io/gorm"
)

// AuditReport is the verdict on the books, taken in one read transaction.
type AuditReport struct {
	Balanced  bool     `json:"balanced"`
	Keys      int64    `json:"keys"`
	Charges   int64    `json:"charges"`
	OpenHolds int64    `json:"open_holds"`
	Problems  []string `json:"problems"` // each names key, period, expected and found

	Chains []ChainHead `json:"chains"` // the end of each writer's chain of charges
}

// problemsMax bounds a report on books that are broken throughout.
const problemsMax = 1000

// Audit proves the books at any time, beside a running gateway too: per key
// and day, used is the sum of charges, held the sum of open holds, requests
// the number of charges, in tokens and in money; each charge and hold is
// consistent in itself; and no charge was changed, removed or added after it was
// written. With the Chains of an earlier report as a checkpoint, also those that
// ended the chains then are still there.
func (a *Admin) Audit(ctx context.Context, checkpoint ...ChainHead) (AuditReport, error) {
	report := AuditReport{Problems: []string{}}
	err := a.store.read.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		for _, count := range []struct {
			into  *int64
			query string
		}{
			{&report.Keys, "SELECT count(*) FROM keys"},
			{&report.Charges, "SELECT count(*) FROM charges"},
			{&report.OpenHolds, "SELECT count(*) FROM holds WHERE state < 3"},
		} {
			if err := tx.Raw(count.query).Scan(count.into).Error; err != nil {
				return err
			}
		}
		for _, check := range []func(*gorm.DB) ([]string, error){auditAccounts, auditCharges, auditHolds} {
			problems, err := check(tx)
			if err != nil {
				return err
			}
			report.Problems = append(report.Problems, problems...)
		}
		heads, problems, err := auditChains(tx, checkpoint)
		report.Chains, report.Problems = heads, append(report.Problems, problems...)
		return err
	}, a.store.still())
	if err != nil {
		return AuditReport{}, fmt.Errorf("audit: %w", err)
	}
	report.Balanced = len(report.Problems) == 0
	return report, nil
}

// auditAccounts compares every account, present or missing, with its entries.
func auditAccounts(tx *gorm.DB) (problems []string, err error) {
	var rows []struct {
		KeyID, Day                                           string
		Used, Charged, Held, Holds, Requests, Counted, Known int64
		Spent, Costs, Reserved, HeldCosts                    int64
	}
	err = tx.Raw(`WITH entries AS (
			SELECT key_id, day, used, held, requests, spent, reserved, 0 AS charged, 0 AS holds, 0 AS counted, 0 AS costs, 0 AS held_costs FROM accounts
			UNION ALL SELECT key_id, day, 0, 0, 0, 0, 0, total, 0, CASE WHEN kind = 'charge' THEN 1 ELSE 0 END, cost, 0 FROM charges
			UNION ALL SELECT key_id, day, 0, 0, 0, 0, 0, 0, tokens, 0, 0, cost FROM holds WHERE state < 3),
		sums AS (SELECT key_id, day, CAST(sum(used) AS BIGINT) AS used, CAST(sum(charged) AS BIGINT) AS charged,
			CAST(sum(held) AS BIGINT) AS held, CAST(sum(holds) AS BIGINT) AS holds,
			CAST(sum(spent) AS BIGINT) AS spent, CAST(sum(costs) AS BIGINT) AS costs,
			CAST(sum(reserved) AS BIGINT) AS reserved, CAST(sum(held_costs) AS BIGINT) AS held_costs,
			CAST(sum(requests) AS BIGINT) AS requests, CAST(sum(counted) AS BIGINT) AS counted FROM entries GROUP BY key_id, day)
		SELECT sums.*, CASE WHEN keys.id IS NULL THEN 0 ELSE 1 END AS known FROM sums LEFT JOIN keys ON keys.id = sums.key_id
		WHERE used <> charged OR held <> holds OR requests <> counted OR spent <> costs OR reserved <> held_costs OR keys.id IS NULL
		ORDER BY sums.key_id, day LIMIT ?`, problemsMax).Scan(&rows).Error
	for _, r := range rows {
		where := fmt.Sprintf("key %s, day %s", r.KeyID, r.Day)
		if r.Known == 0 {
			problems = append(problems, fmt.Sprintf("%s: no such key in the books", where))
		}
		for _, c := range []struct {
			name, source    string
			found, expected int64
		}{
			{"used tokens", "sum of charges", r.Used, r.Charged},
			{"held tokens", "sum of open holds", r.Held, r.Holds},
			{"requests", "number of charges", r.Requests, r.Counted},
			{"spent nano-units", "sum of charges", r.Spent, r.Costs},
			{"reserved nano-units", "sum of open holds", r.Reserved, r.HeldCosts},
		} {
			if c.found != c.expected {
				problems = append(problems, fmt.Sprintf("%s: %s: expected %d (%s), found %d", where, c.name, c.expected, c.source, c.found))
			}
		}
	}
	return problems, err
}

// auditCharges checks what each charge says about itself.
func auditCharges(tx *gorm.DB) (problems []string, err error) {
	var rows []struct {
		ID, KeyID, Day, Kind                             string
		Prompt, Completion, Total, HoldTokens, Overshoot int64
		Ref, Parent                                      string
	}
	err = tx.Raw(`SELECT c.id, c.key_id, c.day, c.kind, c.prompt, c.completion, c.total, c.hold_tokens, c.overshoot,
			coalesce(c.ref, '') AS ref, coalesce(p.id, '') AS parent
		FROM charges c LEFT JOIN charges p ON p.id = c.ref AND p.kind = 'charge' AND p.key_id = c.key_id AND p.day = c.day
		WHERE c.total <> c.prompt + c.completion OR c.overshoot <> CASE WHEN c.total > c.hold_tokens THEN c.total - c.hold_tokens ELSE 0 END
			OR (c.kind = 'adjust') <> (p.id IS NOT NULL) OR (c.kind = 'adjust') <> (c.ref IS NOT NULL)
		ORDER BY c.id LIMIT ?`, problemsMax).Scan(&rows).Error
	for _, r := range rows {
		where := fmt.Sprintf("key %s, day %s, charge %s", r.KeyID, r.Day, r.ID)
		if want := r.Prompt + r.Completion; r.Total != want {
			problems = append(problems, fmt.Sprintf("%s: total: expected %d (prompt + completion), found %d", where, want, r.Total))
		}
		if want := max(0, r.Total-r.HoldTokens); r.Overshoot != want {
			problems = append(problems, fmt.Sprintf("%s: overshoot: expected %d (total - held), found %d", where, want, r.Overshoot))
		}
		if (r.Kind == "adjust") != (r.Parent != "") || (r.Kind == "adjust") != (r.Ref != "") {
			problems = append(problems, fmt.Sprintf("%s: kind %s: expected a reference exactly for corrections, found %q", where, r.Kind, r.Ref))
		}
	}
	return problems, err
}

// auditHolds finds open holds whose request was charged already.
func auditHolds(tx *gorm.DB) (problems []string, err error) {
	var rows []struct{ ID, KeyID, Day string }
	err = tx.Raw(`SELECT h.id, h.key_id, h.day FROM holds h JOIN charges c ON c.id = h.id
		ORDER BY h.id LIMIT ?`, problemsMax).Scan(&rows).Error
	for _, r := range rows {
		problems = append(problems, fmt.Sprintf("key %s, day %s, hold %s: expected a hold or a charge, found both", r.KeyID, r.Day, r.ID))
	}
	return problems, err
}
