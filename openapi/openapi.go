// Package openapi is the REST API's document, which is the source of what the server takes and answers: wrenn.yaml has what all of it shares, each other
// file a part of the API. Its types are generated from it (internal/server/rest), requests are checked against it (internal/server/contract), and tests
// hold every answer against it.
//
// It is a leaf package.
package openapi

import _ "embed"

// JSON is the document. tools/openapi makes it from the YAML.
//
//go:embed wrenn.json
var JSON []byte
