// Package rest is the HTTP door: JSON in, JSON out, described by OpenAPI 3.1.
package rest
