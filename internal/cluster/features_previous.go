//go:build hanse_previous

package cluster

// FeatureLevel of a program that does not know the newest level, to test upgrades from.
const FeatureLevel = AwaitTentative - 1
