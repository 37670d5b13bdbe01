#!/bin/sh
# A hook can only know its target by what it is told: the event and the deployment.
echo "$LIFECYCLE_EVENT of $APPLICATION_NAME/$DEPLOYMENT_GROUP_NAME"
