// Package openapi is the REST API's document, the source of what the server takes and answers: its types are generated from it
// (internal/server/rest), requests are checked against it, and tests hold every answer against it.
//
// It is a leaf package.
package openapi

import _ "embed"

// YAML is the document.
//
//go:embed wrenn.yaml
var YAML []byte
