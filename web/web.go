// Package web has the server's pages as they are served: HTML, CSS and ES modules, written by hand, without a framework or a build step.
//
// test is the test page, docs the API's reference, shared what both use, index.html says where things are. internal/server/pages serves them.
//
// It is a leaf package.
package web

import "embed"

// Files are the pages and what they load.
//
//go:embed index.html shared test docs
var Files embed.FS
