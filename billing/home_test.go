package billing

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// home is where the books of a test are: SQLite, or a schema of its own in a
// shared PostgreSQL.
type home struct {
	server *rig.Postgres
	url    string
	next   *atomic.Int64
}

func postgres15(t testing.TB) home {
	t.Helper()
	server := rig.StartPostgres(t)
	return home{server: server, url: server.NewDatabase(), next: new(atomic.Int64)}
}

// options are those of new books.
func (h home) options(t testing.TB, c *clock) Options {
	t.Helper()
	o := options(t.TempDir(), c)
	o.URL = h.schema(t)
	return o
}

// schema makes an empty schema and returns the URL that leads to it.
func (h home) schema(t testing.TB) string {
	t.Helper()
	if h.server == nil {
		return ""
	}
	name := fmt.Sprintf("s%d", h.next.Add(1))
	db := raw(t, Options{URL: h.url})
	execSQL(t, db, "CREATE SCHEMA "+name)
	db.Close()
	return h.url + "&connect_timeout=5&search_path=" + name // a busy machine answers late
}

// crash leaves what a crash at this moment would leave, and says where.
func (h home) crash(t testing.TB, b *Book, o Options) Options {
	t.Helper()
	if h.server == nil {
		o.DataDir = copyDir(t, o.DataDir)
		return o
	}
	kill(b)
	return o
}

// kill ends books in PostgreSQL as the death of their process would.
func kill(b *Book) {
	e := b.engine.(*pgBooks)
	b.closing.Do(func() {}) // a later Close does nothing
	close(b.writer.abort)
	<-b.writer.ended
	e.keeper.stop()
	pgDrop(e.conn)
	_ = b.store.close()
	_ = b.spill.close()
	b.unlock()
}

// part is a test of books that are somewhere.
type part struct {
	name string
	run  func(*testing.T, home)
}

// suite is what books promise wherever they are.
func suite() []part {
	return []part{
		{"OperatorsChangesReachAnOpenBook", testOperatorsChangesReachAnOpenBook},
		{"RotationHandsAKeyOver", testRotationHandsAKeyOver},
		{"RotationWithoutOverlapHappensOnce", testRotationWithoutOverlapHappensOnce},
		{"ImportNeverRevivesARevokedKey", testImportNeverRevivesARevokedKey},
		{"ImportFileNeverBeatsTheBooks", testImportFileNeverBeatsTheBooks},
		{"ImportFileIsAllOrNothing", testImportFileIsAllOrNothing},
		{"OperatorsMistakesAreRefused", testOperatorsMistakesAreRefused},
		{"UsageReport", testUsageReport},
		{"UsageByAnswer", testUsageByAnswer},
		{"KeyNamesAreReadOnly", testKeyNamesAreReadOnly},
		{"AuditNamesWhatWasTamperedWith", testAuditNamesWhatWasTamperedWith},
		{"ParallelReservesAdmitExactlyTheBudget", testParallelReservesAdmitExactlyTheBudget},
		{"UnusedHoldComesBackAndOvershootIsRecorded", testUnusedHoldComesBackAndOvershootIsRecorded},
		{"RefusalNamesTheLongestWait", testRefusalNamesTheLongestWait},
		{"HoldSize", testHoldSize},
		{"PeriodsRollOver", testPeriodsRollOver},
		{"ClockJumpingBackOpensNoOldDay", testClockJumpingBackOpensNoOldDay},
		{"BooksAgreeWithAPlainModel", testBooksAgreeWithAPlainModel},
		{"HoldsFoundOpenAreEndedByWhatWasSeen", testHoldsFoundOpenAreEndedByWhatWasSeen},
		{"AdmissionsListEveryAdmittedRequest", testAdmissionsListEveryAdmittedRequest},
		{"VoidedHoldsAreForgottenAfterADay", testVoidedHoldsAreForgottenAfterADay},
		{"NoAcknowledgedSettleIsLostByKill", testNoAcknowledgedSettleIsLostByKill},
		{"AHoldEndsOnce", testAHoldEndsOnce},
		{"CorrectAppendsOnlyGrowth", testCorrectAppendsOnlyGrowth},
		{"AbsurdOutcomesAreStorable", testAbsurdOutcomesAreStorable},
		{"ABlockedWriterRefusesReserves", testABlockedWriterRefusesReserves},
		{"AnAbandonedReserveDoesNotLeak", testAnAbandonedReserveDoesNotLeak},
		{"ASpillReplayedTwiceChargesOnce", testASpillReplayedTwiceChargesOnce},
		{"WithoutDatabaseAndSpillTheSettleFails", testWithoutDatabaseAndSpillTheSettleFails},
		{"CloseSpillsWhatItCannotCommit", testCloseSpillsWhatItCannotCommit},
		{"AnOperationThatCanNeverCommitHoldsUpNoOther", testAnOperationThatCanNeverCommitHoldsUpNoOther},
		{"OnlyOneGatewayAtATime", testOnlyOneGatewayAtATime},
		{"PepperMustBeTheSame", testPepperMustBeTheSame},
		{"ModelsHaveTheirColumns", testModelsHaveTheirColumns},
		{"CallersMayNameTheirHolds", testCallersMayNameTheirHolds},
		{"OneFirstKeyIsMade", testOneFirstKeyIsMade},
		{"DefaultsCanBeExchanged", testDefaultsCanBeExchanged},
		{"FreedTokensAreFreeAtOnce", testFreedTokensAreFreeAtOnce},
		{"RestoreKeepsTheOldBooksAside", testRestoreKeepsTheOldBooksAside},
		{"RestoreRefusesWhileAGatewayWorks", testRestoreRefusesWhileAGatewayWorks},
		{"BackupUnderLoadBalances", testBackupUnderLoadBalances},
		{"ReportOfAKey", testReportOfAKey},
		{"RefreshSeesChangesAtOnce", testRefreshSeesChangesAtOnce},
		{"OneLineAtNinetyPercent", testOneLineAtNinetyPercent},
		{"ParallelChargesSayItOnce", testParallelChargesSayItOnce},
		{"LimitsCanBeCleared", testLimitsCanBeCleared},
		{"ReportTellsHowEverythingEnded", testReportTellsHowEverythingEnded},
		{"ReportsEndWithTheirContext", testReportsEndWithTheirContext},
		{"AReportIsOfOneInstant", testAReportIsOfOneInstant},
		{"TheChainNamesForgedCharges", testTheChainNamesForgedCharges},
		{"ACheckpointHoldsTheEndOfAChain", testACheckpointHoldsTheEndOfAChain},
		{"RebuiltCountersAreTheSame", testRebuiltCountersAreTheSame},
		{"PricesAreNeverRewritten", testPricesAreNeverRewritten},
		{"AChargeKeepsThePriceOfItsAdmission", testAChargeKeepsThePriceOfItsAdmission},
		{"AModelWithoutAPriceIsMeteredOnly", testAModelWithoutAPriceIsMeteredOnly},
		{"ParallelReservesSpendExactlyTheMoney", testParallelReservesSpendExactlyTheMoney},
		{"WhatCostsNothingNeedsNoMoney", testWhatCostsNothingNeedsNoMoney},
		{"AModelCostsWhatItsNameInTheBooksCosts", testAModelCostsWhatItsNameInTheBooksCosts},
		{"PricesReachAnOpenBook", testPricesReachAnOpenBook},
		{"ModelsWithoutAPriceCanBeRefused", testModelsWithoutAPriceCanBeRefused},
		{"ABlockedKeyIsKeptOut", testABlockedKeyIsKeptOut},
		{"TariffsAreNamedLimits", testTariffsAreNamedLimits},
		{"ATariffIsGivenAndTakenAway", testATariffIsGivenAndTakenAway},
		{"ATariffReachesAnOpenBook", testATariffReachesAnOpenBook},
		{"ModelsCanBeChanged", testModelsCanBeChanged},
		{"TextsAndExpiryCanBeChanged", testTextsAndExpiryCanBeChanged},
		{"LastUseOfKeys", testLastUseOfKeys},
		{"EachChangeLeavesOneRow", testEachChangeLeavesOneRow},
		{"AChangeAndItsRecordAreOne", testAChangeAndItsRecordAreOne},
	}
}

// shared is what books in PostgreSQL promise beside that.
func shared() []part {
	return []part{
		{"ForeignSchemasAreRefusedUntouched", testForeignSchemasAreRefusedUntouched},
		{"ADirectoryKnowsItsBooks", testADirectoryKnowsItsBooks},
		{"ARoleThatLosesCommitsIsOverruled", testARoleThatLosesCommitsIsOverruled},
		{"FilesOfAReplicaAreItsOwn", testFilesOfAReplicaAreItsOwn},
		{"ReplicasBeginTogether", testReplicasBeginTogether},
		{"ChangesOfKeysReachAllReplicas", testChangesOfKeysReachAllReplicas},
		{"ReplicasAdmitExactlyTheBudget", testReplicasAdmitExactlyTheBudget},
		{"ReplicasChurn", testReplicasChurn},
		{"OneReplicaSaysABudgetIsNearlyUsed", testOneReplicaSaysABudgetIsNearlyUsed},
		{"ADeadReplicasHoldsAreEnded", testADeadReplicasHoldsAreEnded},
		{"TheLateSettleOfAReplicaTakenForDead", testTheLateSettleOfAReplicaTakenForDead},
		{"OthersEndingAHoldGivesNothingTwice", testOthersEndingAHoldGivesNothingTwice},
		{"ASpillOutlivesItsProcess", testASpillOutlivesItsProcess},
		{"AServerThatIsOutOfReach", testAServerThatIsOutOfReach},
		{"AFlappingLineLeaksNoHold", testAFlappingLineLeaksNoHold},
		{"NothingIsLostWhenTheServerIsKilled", testNothingIsLostWhenTheServerIsKilled},
	}
}

func TestSQLite(t *testing.T) {
	for _, c := range suite() {
		t.Run(c.name, func(t *testing.T) { c.run(t, home{}) })
	}
}

func TestPostgres(t *testing.T) {
	at := postgres15(t)
	for _, c := range append(suite(), shared()...) {
		t.Run(c.name, func(t *testing.T) { c.run(t, at) })
	}
}

func BenchmarkReserveSettle(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkReserveSettle(b, home{}) })
	b.Run("postgresql", func(b *testing.B) { benchmarkReserveSettle(b, postgres15(b)) })
}

func benchmarkReserveSettle(b *testing.B, at home) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			o := at.options(b, nil)
			book, k := setup(b, o, Limits{})
			before := cpuTime(b)
			work := make(chan struct{})
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for range work {
						h, err := book.Reserve(context.Background(), ask(k.ID, 1000))
						if err == nil {
							err = book.Settle(context.Background(), h.ID, Outcome{Prompt: 10, Completion: 20, Provenance: Reported})
						}
						if err != nil {
							b.Error(err)
						}
					}
				})
			}
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}
