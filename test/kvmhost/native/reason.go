package native

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// reason finds in a report of 'wrenn host check --json' the first thing that this machine lacks.
func reason(report []byte, exit *exec.ExitError) string {
	var r struct {
		Items []struct {
			Name   string `json:"name"`
			State  string `json:"state"`
			Detail string `json:"detail"`
		} `json:"items"`
	}
	if json.Unmarshal(report, &r) == nil {
		for _, item := range r.Items {
			if item.State == "fail" {
				return strings.TrimSuffix(item.Name+": "+item.Detail, ": ")
			}
		}
	}
	return fmt.Sprintf("'wrenn host check' ended with %v", exit)
}
