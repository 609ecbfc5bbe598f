package rpc_test

import (
	"testing"

	"wrenn.dev/wrenn/internal/hostagent/hostagenttest"
	"wrenn.dev/wrenn/internal/hostagent/quota"
)

func TestConformance(t *testing.T) {
	hostagenttest.Run(t, func(t *testing.T) hostagenttest.Target {
		return hostagenttest.Target{Client: newWorld(t, quota.Amount{Sandboxes: hostagenttest.Room}).Client, Template: "base"}
	})
}
