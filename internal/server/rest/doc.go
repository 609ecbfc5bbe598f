// Package rest is the REST API in Go: types, routes and the interface that internal/server/api implements. All of it is generated from
// openapi/*.yaml; `make generate` makes it anew.
package rest
