package sim

// probe is a rare situation that a batch of runs has to reach: "sometimes" assertions, after Antithesis and FoundationDB's
// CODE_PROBE. One that is never hit in thousands of seeds says that the simulator looks away.
type probe uint8

const (
	probeCrash probe = iota
	probeKilled
	probeLeaderChange
	probeTwoLeaders
	probeSnapshot
	probeSnapshotDuringSaga
	probeReplayed
	probeDeclined
	probeTimeoutAfterEffect
	probeCallbackAfterRefund
	probeUnknownPayment
	probeCompensationAfterCharge
	probeLateAuthorization
	probeReleaseBeforeReserve
	probeRejected
	probeCanceled
	probeExpired
	probeConfirmed
	probeFulfilled
	probeReturned
	probeRefunded
	probeOnHold
	probeStuck
	probeOutboxTakenOver
	probeHoldExpired
	probeLogOverwritten
	probeReplayedEntry
	probeUndecided
	probeLostDisk
	probeMoved
	probeOldDisk
	probeGivenUp
	probeDrained
	probePaidAhead
	probeAheadTakenBack
	probeCalledNotLogged
	probeVoidAsked
	probeToldBeforeLogged
	probeHeldEarly
	probeNotPlaced
	probeLapsed
	probeInTheWay
	probeAwaited
	probeKeyReused
	probeKeyRefused
	probes
)

var probeNames = [probes]string{
	probeCrash:                   "a node crashed",
	probeKilled:                  "a node was killed at a chosen moment",
	probeLeaderChange:            "another leader took over",
	probeTwoLeaders:              "two nodes believed to lead at once, in different terms",
	probeSnapshot:                "a snapshot arrived",
	probeSnapshotDuringSaga:      "a snapshot was installed while orders were under way",
	probeReplayed:                "a retry was answered from the idempotency record",
	probeDeclined:                "the provider declined",
	probeTimeoutAfterEffect:      "the provider's answer was lost after it had acted",
	probeCallbackAfterRefund:     "the provider called back after a refund",
	probeUnknownPayment:          "a payment was unknown for a while",
	probeCompensationAfterCharge: "an order was undone after its payment was authorized",
	probeLateAuthorization:       "an authorization came after the order was given up",
	probeReleaseBeforeReserve:    "a hold was released before it was reserved",
	probeRejected:                "an order was rejected",
	probeCanceled:                "an order was canceled",
	probeExpired:                 "an order expired",
	probeConfirmed:               "an order was confirmed",
	probeFulfilled:               "an order was fulfilled",
	probeReturned:                "goods were returned",
	probeRefunded:                "money was refunded",
	probeOnHold:                  "an order waited for a person",
	probeStuck:                   "a step was stuck",
	probeOutboxTakenOver:         "a new leader took over messages that were not delivered",
	probeHoldExpired:             "a reservation expired",
	probeLogOverwritten:          "an entry that was not committed was overwritten",
	probeReplayedEntry:           "a restarted replica applied entries again",
	probeLostDisk:                "a node lost its disk",
	probeMoved:                   "a replica was moved to another node",
	probeOldDisk:                 "an old copy of a disk was put back",
	probeGivenUp:                 "a move was given up",
	probeDrained:                 "a node was drained, decommissioned or taken back",
	probePaidAhead:               "a payment was authorized before its holds were on record",
	probeAheadTakenBack:          "an authorization that had left before its holds were on record was taken back",
	probeCalledNotLogged:         "the provider was called and its answer could not be logged",
	probeVoidAsked:               "a void asked the provider about an authorization that was not on record",
	probeToldBeforeLogged:        "an order was told that it is paid before its payment was on record",
	probeHeldEarly:               "stock was held for an order that was not on record yet",
	probeNotPlaced:               "stock was held for an order that was not placed after all",
	probeLapsed:                  "an order was placed too late, and placed anew",
	probeInTheWay:                "a reserve waited for what was held tentatively",
	probeAwaited:                 "an adjustment or reservation waited for what was held tentatively",
	probeKeyReused:               "a second request under a key was refused",
	probeKeyRefused:              "an order was undone because its key was another request's",
	probeUndecided:               "a history was too long to be decided",
}

func (w *World) hit(p probe) { w.probes[p]++ }
