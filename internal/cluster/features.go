//go:build !hanse_previous

package cluster

// FeatureLevel is the newest level of features that this program knows. A level is in force when every member knows it; what it
// brings is used from then on only.
const FeatureLevel = AwaitTentative
