// Envd is the agent inside a guest. It takes no arguments; what it needs to know, the host tells it by the metadata service.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"wrenn.dev/wrenn/internal/guest/envd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := envd.Run(ctx, log); err != nil {
		log.Error("envd ended", "error", err)
		os.Exit(1)
	}
}
