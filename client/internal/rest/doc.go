// Package rest is the REST API as a Go client sends it: types, and a function for each operation. All of it is generated from openapi/*.yaml;
// `make generate` makes it anew. Package client is its face.
package rest
