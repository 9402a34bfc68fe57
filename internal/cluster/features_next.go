//go:build hanse_next

package cluster

// FeatureLevel of a program of the future, to test upgrades with: it knows one level more and does nothing with it.
const FeatureLevel uint32 = 2
