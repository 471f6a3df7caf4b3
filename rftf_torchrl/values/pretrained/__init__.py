"""Value models on pretrained towers."""
